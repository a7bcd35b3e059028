# Shared by the scripts of this folder: where the cache lies, and how to find Java and the test broker.
# Sourced, never run. Everything that a script makes lands in the cache, outside the clone.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export WATERWHEEL_CACHE=${WATERWHEEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/waterwheel}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$WATERWHEEL_CACHE/target}

kafka_version=4.2.0
kafka_home=$WATERWHEEL_CACHE/kafka-$kafka_version
moto_version=5.2.1
moto_home=$WATERWHEEL_CACHE/moto-$moto_version

# The crates and features that everything is built with, `tests/support/cargo.rs` too: with others all is compiled a second time.
workspace=(--workspace --features fraud_detection/sql)

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The feature release of a `java` command ("17" for 17.0.15), or nothing.
java_release() {
  "$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

# Sets `java` to a Java 17 or newer: JAVA_HOME's, the one in PATH, or any installed one; exports JAVA_HOME
# where the one in PATH is too old, so that Maven and the tests take the same.
find_java() {
  local candidate release
  for candidate in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*/bin/java; do
    have "$candidate" || continue
    release=$(java_release "$candidate")
    [ "${release:-0}" -ge 17 ] || continue
    java=$candidate
    if [ "$candidate" = java ]; then unset JAVA_HOME; else JAVA_HOME=${candidate%/bin/java}; export JAVA_HOME; fi
    return 0
  done
  return 1
}

kafka_is_here() { [ -e "$kafka_home/complete" ]; }

# For benches, which start a broker of their own: brings what that takes, unless WATERWHEEL_TEST_KAFKA names one.
need_kafka() {
  [ -z "${WATERWHEEL_TEST_KAFKA:-}" ] || return 0
  find_java || die "no Java 17 or newer was found"
  fetch_kafka
}

# What is measured is built fully optimised. The dev profile's dependencies are as a release's are, so only our own crates are
# compiled once more.
optimised() {
  export CARGO_PROFILE_DEV_OPT_LEVEL=3 CARGO_PROFILE_DEV_INCREMENTAL=false
  export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false
}

have_venv() { have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }

# Installs moto's server, an S3 for the tests, into the cache, once. Without Python its tests are left out, which they say.
fetch_moto() {
  [ ! -e "$moto_home/complete" ] || return 0
  if ! have_venv; then
    say "no Python 3 with venv: the tests of checkpoints in object stores are left out (package python3-venv)"
    return 0
  fi
  say "installing moto $moto_version for the tests into $moto_home (about 250 MB)"
  rm -rf "$moto_home"
  if ! { python3 -m venv "$moto_home" && "$moto_home/bin/pip" install -q --disable-pip-version-check "moto[server]==$moto_version"; } >"$moto_home.log" 2>&1
  then
    cat "$moto_home.log" >&2
    rm -rf "$moto_home"
    say "moto could not be installed: the tests of checkpoints in object stores are left out"
    return 0
  fi
  rm -f "$moto_home.log"
  touch "$moto_home/complete"
}

# Copies the broker's jars into the cache, once. Built beside its place and renamed, so that an
# interrupted download is never taken for a whole one.
fetch_kafka() {
  kafka_is_here && return 0
  local fresh=$kafka_home.$$
  say "fetching Apache Kafka $kafka_version for the tests into $kafka_home (about 55 MB)"
  mkdir -p "$fresh"
  if ! mvn -B -q -f "$root/tests/support/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$fresh/lib" >"$fresh/maven.log" 2>&1
  then
    cat "$fresh/maven.log" >&2
    rm -rf "$fresh"
    die "Kafka could not be fetched with Maven. With a broker of your own: WATERWHEEL_TEST_KAFKA=host:port script/test"
  fi
  touch "$fresh/complete"
  rm -rf "$kafka_home"
  mv "$fresh" "$kafka_home"
}
