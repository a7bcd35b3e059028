//! IN and EXISTS anywhere, NOT IN with NULLs, and bags of rows: after every prefix what DataFusion computes of it, asked in
//! another way where it is wrong itself.

use super::oracle::{DDL, check, condition, input, oracle, pick};
use super::world::{Feed, Feeds, Running};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A condition with a subquery over t, for rows of l; what is the same as that it is true, and as that it is false, for DataFusion.
fn member() -> impl Strategy<Value = [String; 3]> {
    let source = (pick(&["k", "i", "k + 1"]), condition(), pick(&["", "", "l.s = r.s", "l.b = r.b AND r.k > 0"])).prop_map(
        |(of, condition, and)| {
            let condition = condition.replace("WHERE ", "");
            let all: Vec<String> = [and, &condition].into_iter().filter(|c| !c.is_empty()).map(|c| format!("({c})")).collect();
            (of, if all.is_empty() { "TRUE".to_string() } else { all.join(" AND ") })
        },
    );
    (source, pick(&["l.k", "l.i", "COALESCE(l.k, 1)", "2", ""]), any::<bool>()).prop_map(|((of, condition), asked, not)| {
        let rows = |and: String| format!("EXISTS (SELECT 1 FROM t AS r WHERE {condition}{and})");
        let (ours, is, is_not) = if asked.is_empty() {
            let ours = format!("{}EXISTS (SELECT k FROM t AS r WHERE {condition})", if not { "NOT " } else { "" });
            (ours, rows(String::new()), format!("NOT {}", rows(String::new())))
        } else {
            let ours = format!("{asked} {}IN (SELECT {of} FROM t AS r WHERE {condition})", if not { "NOT " } else { "" });
            let nulls = format!(" AND ({of} = {asked} OR {of} IS NULL OR {asked} IS NULL)");
            (ours, rows(format!(" AND {of} = {asked}")), format!("NOT {}", rows(nulls)))
        };
        if not { [ours, is_not, is] } else { [ours, is, is_not] }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn members_within_or_add_up((splits, batch, prefixes, restarts, seed) in input(), [member, is, _] in member(), plain in pick(&["l.k > 1", "l.s = 'a'", "l.b", "l.f IS NULL"]),
        and: bool)
    {
        let select = "SELECT l.k, l.s, l.i FROM t AS l WHERE";
        let and = if and { " AND l.d IS NOT NULL" } else { "" };
        let ours = format!("{select} ({plain} OR {member}){and}");
        // Those that the first condition takes, and of the others those that the second one does.
        let theirs = format!("{select} {plain}{and} UNION ALL {select} ({plain}) IS NOT TRUE{and} AND {is}");
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn members_by_themselves_add_up((splits, batch, prefixes, restarts, seed) in input(), [member, is, _] in member()) {
        let select = "SELECT l.k, l.s FROM t AS l WHERE";
        check(&format!("{select} {member}"), &format!("{select} {is}"), &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    /// As values: what is neither true nor false is NULL.
    #[test]
    fn members_as_values_add_up((splits, batch, prefixes, restarts, seed) in input(), [member, is, is_not] in member(), not: bool) {
        let value = if not { format!("NOT ({member})") } else { member };
        let ours = format!("SELECT k, m FROM (SELECT l.k, {value} AS m FROM t AS l) AS q WHERE m IS NOT NULL");
        let (yes, no) = if not { ("FALSE", "TRUE") } else { ("TRUE", "FALSE") };
        let theirs = format!("SELECT l.k, {yes} AS m FROM t AS l WHERE {is} UNION ALL SELECT l.k, {no} AS m FROM t AS l WHERE {is_not}");
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn bags_add_up((splits, batch, prefixes, restarts, seed) in input(), a in side(), b in side(), is_except: bool, thrice: bool) {
        let op = if is_except { "EXCEPT ALL" } else { "INTERSECT ALL" };
        let third = if thrice { " EXCEPT ALL SELECT CAST(1 AS BIGINT) AS x, 'a' AS y FROM t" } else { "" };
        let feed = Feed::new("t", splits, batch);
        let feeds = Feeds(BTreeMap::from([("t".to_string(), feed.clone())]));
        let sql = format!("{a} {op} {b}{third}");
        let mut running = Running::start(&feeds, &format!("{DDL}\n{sql}"), seed, 1 + (seed % 3) as u32);
        for (n, prefix) in prefixes.into_iter().chain([usize::MAX]).enumerate() {
            feed.reveal(prefix);
            running.settle();
            let of = |sql: &str| oracle(&feed.prefix(), sql);
            let (left, right) = (of(&a), of(&b));
            let mut want: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            for (row, copies) in left {
                let others = right.get(&row).copied().unwrap_or(0);
                let mut stay = if is_except { copies - others } else { copies.min(others) };
                if thrice && row == ["1", "a"] {
                    stay -= feed.prefix().len() as i64;
                }
                if stay > 0 {
                    want.insert(row, stay);
                }
            }
            prop_assert!(running.rows.rows() == want, "{sql}\n got {:?}\nwant {:?}", running.rows.rows(), want);
            if let Some(parallelism) = restarts.get(n) {
                running.restart(*parallelism);
            }
        }
    }
}

/// Rows with columns x and y, as they come or as they change.
fn side() -> impl Strategy<Value = String> {
    let plain =
        (pick(&["i", "CAST(k AS BIGINT)"]), condition()).prop_map(|(x, condition)| format!("SELECT {x} AS x, s AS y FROM t {condition}"));
    let changing = (pick(&["COUNT(*)", "MAX(i)", "SUM(k)"]), pick(&["k, s", "b, s", "k, b, s"]))
        .prop_map(|(x, keys)| format!("SELECT {x} AS x, s AS y FROM t GROUP BY {keys}"));
    prop_oneof![plain, changing]
}
