//! Against moto's server, a process of its own; the same scripts that the local store goes through.

use super::server::Server;
use super::*;
use object_store::aws::AmazonS3Builder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use waterwheel_engine::error::Kind;
use waterwheel_engine::state::StateFile;
use waterwheel_engine::testing::{StorageStep, storage_conforms};

fn storage(server: &Server, env: &Env, url: &str) -> S3Storage {
    let builder = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id("AKIDTEST")
        .with_secret_access_key("canary-of-a-secret");
    S3Storage::with(env, &Location::parse(url).unwrap(), builder).unwrap()
}

#[test]
fn the_object_store_conforms_on_a_real_server() {
    let Some(mut server) = Server::start() else { return };
    let (env, scratch) = (Env::real(), tempfile::tempdir().unwrap());
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let folders = std::cell::Cell::new(0);
    runner
        .run(&proptest::collection::vec(any::<(u8, u8, u8)>().prop_map(StorageStep::of), 0..16), |script| {
            folders.set(folders.get() + 1);
            let storage = storage(&server, &env, &format!("s3://bucket/a/{}", folders.get()));
            storage_conforms(&env, &storage, scratch.path(), &script, 5_000);
            Ok(())
        })
        .unwrap();
    // Objects of several parts, and one of exactly a part.
    for (folder, bytes) in [("b", (16 << 20) + 5), ("c", 16 << 20), ("d", (32 << 20) + 1)] {
        let storage = storage(&server, &env, &format!("s3://bucket/{folder}"));
        storage_conforms(&env, &storage, scratch.path(), &[StorageStep::PutFile(1, true), StorageStep::GetFile(5)], bytes);
    }
    let whole = storage(&server, &env, "s3://bucket");
    whole.check_conditional_put().unwrap();
    whole.check_conditional_put().unwrap();
    changed_files_do_not_count(&env, &whole, scratch.path());
    names_stay_inside(&whole);
    // Away: transient, and nothing secret is said.
    server.kill();
    let e = whole.get("log/1").unwrap_err();
    assert_eq!(e.kind(), Kind::Transient);
    assert!(!e.report().contains("canary") && !e.report().contains("AKIDTEST"), "{}", e.report());
}

/// A file that is not as its snapshot says is never an object, small or large.
fn changed_files_do_not_count(env: &Env, storage: &S3Storage, scratch: &std::path::Path) {
    let from = scratch.join("changed");
    for bytes in [100, (16 << 20) + 7] {
        let mut file = env.files.create(&from).unwrap();
        file.write_all(&vec![7; bytes]).unwrap();
        file.sync().unwrap();
        let said = StateFile { name: "changed".into(), len: bytes as u64, crc: 1, immutable: true };
        assert_eq!(storage.put_file("state/changed", &from, &said).unwrap_err().kind(), Kind::Restart);
        assert_eq!(storage.size("state/changed").unwrap(), None);
    }
}

fn names_stay_inside(storage: &S3Storage) {
    for name in ["", "../outside", "a//b", "/a"] {
        assert!(storage.get(name).is_err(), "{name:?}");
    }
    // As the engine makes them of odd ids.
    let odd = "state/a-x%2d1%2f-0-000001.sst@7";
    assert!(storage.put_if_absent(odd, b"odd").unwrap());
    assert_eq!(storage.get(odd).unwrap().as_deref(), Some(&b"odd"[..]));
    assert_eq!(storage.list("state").unwrap(), [odd]);
}

#[test]
fn urls() {
    let at = |url: &str| Location::parse(url).map(|l| (l.bucket, l.folder));
    assert_eq!(at("s3://b/jobs/fraud/").unwrap(), ("b".into(), "jobs/fraud".into()));
    assert_eq!(at("s3://b").unwrap(), ("b".into(), String::new()));
    for url in ["gs://b/x", "s3://", "s3://b//x", "s3://b/../x"] {
        assert!(at(url).unwrap_err().report().contains("s3://bucket/folder"), "{url}");
    }
    let e = at("s3://AKID:secret@host/x").unwrap_err();
    assert!(!e.report().contains("secret@") && e.report().contains("AWS_ACCESS_KEY_ID"), "{}", e.report());
}
