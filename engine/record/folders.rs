//! Folders named after values, `country=DE/day=2026-11-27`: how Hive and Flink lay out the partitions of a table.
//!
//! Signs that mean something in a path are written `%XX`, as Flink writes them. A name alone stands for NULL; a value that is
//! that name has its first letter written `%XX`.
//!
//! Invariant: whatever a value is, its folder is one level below the table's, has that value for its own, and gives it back.

/// What Flink's tables write for NULL unless told otherwise.
pub const NO_VALUE: &str = "__DEFAULT_PARTITION__";
/// The longest name that file systems take, in bytes.
const LEVEL_BYTES: usize = 255;
/// The longest path of folders; systems take some 4,000 bytes, and the table's own folder is before it.
const PATH_BYTES: usize = 2_000;

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || b"\"#%'*/:=?\\{[]^".contains(&byte)
}

fn escape(text: &str, first_too: bool, out: &mut String) {
    for (i, c) in text.char_indices() {
        if (i == 0 && first_too) || (c.is_ascii() && is_special(c as u8)) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &behind[2..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Appends the folder of one column's value (`None` is NULL, written as `none`) to a path of folders.
///
/// ```
/// use waterwheel_engine::record::folders::{self, NO_VALUE};
/// let mut path = String::new();
/// folders::push(&mut path, "country", Some("DE"), NO_VALUE).unwrap();
/// folders::push(&mut path, "at", Some("00:05"), NO_VALUE).unwrap();
/// assert_eq!(path, "country=DE/at=00%3A05");
/// let names = ["country", "at"];
/// assert_eq!(folders::values(&path, &names, NO_VALUE), Some(vec![Some("DE".into()), Some("00:05".into())]));
/// ```
///
/// # Errors
/// The value is too long to name a folder.
pub fn push(path: &mut String, column: &str, value: Option<&str>, none: &str) -> Result<(), String> {
    let kept = path.len();
    if kept > 0 {
        path.push('/');
    }
    let begin = path.len();
    path.push_str(&level(column));
    match value {
        None => path.push_str(none),
        Some(value) => escape(value, value == none, path),
    }
    if path.len() - begin > LEVEL_BYTES || path.len() > PATH_BYTES {
        path.truncate(kept);
        return Err(format!("column {column} has a value that is too long to name a folder"));
    }
    Ok(())
}

/// How the names of a column's folders begin: `country=`.
pub fn level(column: &str) -> String {
    let mut name = String::with_capacity(column.len() + 1);
    // A name that begins with a dot is hidden.
    escape(column, column.starts_with('.'), &mut name);
    name.push('=');
    name
}

/// The values that the folders at the beginning of a path are named after, one of each of these columns in order; nothing
/// where it does not begin with such folders.
pub fn values(path: &str, columns: &[impl AsRef<str>], none: &str) -> Option<Vec<Option<String>>> {
    let mut levels = path.split('/');
    let mut value = |column: &str| {
        let name = levels.next()?.strip_prefix(&level(column))?;
        if name == none { Some(None) } else { unescape(name).map(Some) }
    };
    columns.iter().map(|column| value(column.as_ref())).collect()
}

/// Whether a path is one of folders as [`push`] makes them: it stays below where it begins.
pub fn is_path(path: &str) -> bool {
    let is_level = |level: &str| {
        !level.starts_with(['.', '=']) && level.contains('=') && level.len() <= LEVEL_BYTES && !level.bytes().any(|b| b == 0 || b == b'\\')
    };
    path.len() <= PATH_BYTES && path.split('/').all(is_level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(values: &[(&str, Option<&str>)]) -> Result<String, String> {
        let mut path = String::new();
        values.iter().try_for_each(|(column, value)| push(&mut path, column, *value, NO_VALUE))?;
        Ok(path)
    }

    #[test]
    fn names_are_those_of_flink() {
        assert_eq!(path(&[("dt", Some("2024-01-01")), ("hm", Some("00:05"))]).unwrap(), "dt=2024-01-01/hm=00%3A05");
        assert_eq!(path(&[("a", Some("x/../y")), ("b", None)]).unwrap(), "a=x%2F..%2Fy/b=__DEFAULT_PARTITION__");
        assert_eq!(path(&[("a=b", Some("")), (".c", Some(NO_VALUE))]).unwrap(), "a%3Db=/%2Ec=%5F_DEFAULT_PARTITION__");
        assert!(path(&[("a", Some(&"x".repeat(254)))]).is_err());
    }

    #[test]
    fn what_would_leave_the_folder_is_no_path() {
        for wrong in ["", "..", "a=1/..", "/a=1", "a=1/", "=x", ".a=1", "a", "a=\0", "a=\\b"] {
            assert!(!is_path(wrong), "{wrong}");
        }
        assert_eq!(values("a=1/part", &["a", "b"], NO_VALUE), None);
        assert_eq!(values("a=1/part", &["a"], NO_VALUE), Some(vec![Some("1".into())]));
        assert_eq!(values("a=%FF/part", &["a"], NO_VALUE), None, "no UTF-8");
    }

    proptest! {
        #[test]
        fn values_come_back_and_no_two_share_a_folder(
            a in proptest::option::of("[\u{0}-\u{80}]{0,4}|__DEFAULT_PARTITION__|%5F_DEFAULT_PARTITION__|\\PC{0,4}"),
            b in proptest::option::of("[\u{0}-\u{80}]{0,4}|__DEFAULT_PARTITION__|%5F_DEFAULT_PARTITION__|\\PC{0,4}"),
            none in prop_oneof![Just(NO_VALUE), Just("null"), Just("\u{e9}")],
        ) {
            let of = |a: &Option<String>| {
                let mut path = String::new();
                push(&mut path, "k", a.as_deref(), none).unwrap();
                path
            };
            let one = of(&a);
            prop_assert!(is_path(&one));
            prop_assert!(!one.contains('/'));
            prop_assert_eq!(values(&one, &["k"], none), Some(vec![a.clone()]));
            prop_assert_eq!(one == of(&b), a == b);
        }
    }
}
