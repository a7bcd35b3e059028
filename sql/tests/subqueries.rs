//! IN and EXISTS anywhere, NOT IN with NULLs, ANY and ALL, LATERAL, values beside groups, and bags of rows: after every prefix what DataFusion computes of it, asked in
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

    /// Of a comparison with ANY or ALL: that it is true, where it is only asked that, and both truth values.
    #[test]
    fn comparisons_with_all_rows_add_up((splits, batch, prefixes, restarts, seed) in input(), asked in pick(&["l.k", "l.i", "COALESCE(l.k, 1)", "2"]),
        op in pick(&["=", "<>", "<", "<=", ">", ">="]), of in pick(&["k", "i", "MOD(k, 2)"]), (condition, and) in (condition(), pick(&["", "", "r.s = l.s"])),
        all: bool, as_value: bool, not: bool)
    {
        let condition = condition.replace("WHERE ", "");
        let parts: Vec<String> = [and, &condition].into_iter().filter(|c| !c.is_empty()).map(|c| format!("({c})")).collect();
        let condition = if parts.is_empty() { "TRUE".to_string() } else { parts.join(" AND ") };
        let rows = |is: &str| format!("EXISTS (SELECT 1 FROM t AS r WHERE {condition} AND ({asked} {op} {of}) {is})");
        let (is, is_not) = match all {
            false => (rows("IS TRUE"), format!("NOT {}", rows("IS NOT FALSE"))),
            true => (format!("NOT {}", rows("IS NOT TRUE")), rows("IS FALSE")),
        };
        let ours = format!("{asked} {op} {} (SELECT {of} FROM t AS r WHERE {condition})", if all { "ALL" } else { "SOME" });
        let (ours, theirs) = if as_value {
            let value = if not { format!("NOT ({ours})") } else { ours };
            let (yes, no) = if not { ("FALSE", "TRUE") } else { ("TRUE", "FALSE") };
            (
                format!("SELECT k, m FROM (SELECT l.k, {value} AS m FROM t AS l) AS q WHERE m IS NOT NULL"),
                format!("SELECT l.k, {yes} AS m FROM t AS l WHERE {is} UNION ALL SELECT l.k, {no} AS m FROM t AS l WHERE {is_not}"),
            )
        } else {
            (format!("SELECT l.k, l.s FROM t AS l WHERE {ours}"), format!("SELECT l.k, l.s FROM t AS l WHERE {is}"))
        };
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    /// The first rows for each row; DataFusion is given them with their numbers.
    #[test]
    fn first_rows_beside_rows_add_up((splits, batch, prefixes, restarts, seed) in input(), left: bool, condition in condition(),
        key in pick(&["s", "b", "k"]), order in pick(&["i", "i DESC", "d NULLS LAST, i"]), (skip, fetch) in (0..2usize, 0..3usize), changing: bool)
    {
        let kind = if left { "LEFT JOIN" } else { "JOIN" };
        let rows = if changing {
            format!("(SELECT {key}, MAX(i) AS i, MIN(d) AS d FROM t {condition} GROUP BY {key}, MOD(i, 3))")
        } else {
            format!("(SELECT {key}, i, d FROM t {condition})")
        };
        let offset = if skip > 0 { format!("OFFSET {skip}") } else { String::new() };
        let ours = format!("SELECT l.k, l.s, f.i, f.d FROM t AS l {kind} LATERAL (SELECT r.i, r.d FROM {rows} AS r WHERE r.{key} = l.{key} ORDER BY {order}, i, d LIMIT {fetch} {offset}) AS f ON TRUE");
        let numbered = format!("SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {order}, i, d) AS n FROM {rows} AS r");
        let theirs = format!("SELECT l.k, l.s, f.i, f.d FROM t AS l {kind} (SELECT * FROM ({numbered}) AS n WHERE n > {skip} AND n <= {}) AS f ON l.{key} = f.{key}", skip + fetch);
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    #[test]
    fn groups_beside_rows_add_up((splits, batch, prefixes, restarts, seed) in input(), left: bool, condition in condition(), key in pick(&["s", "b", "k"])) {
        let kind = if left { "LEFT JOIN" } else { "JOIN" };
        let condition = condition.strip_prefix("WHERE ").map_or(String::new(), |c| format!("AND ({c})"));
        let rows = format!("FROM t AS r WHERE r.{key} = l.{key} {condition}");
        let ours = format!("SELECT l.k, f.c, f.m FROM t AS l {kind} LATERAL (SELECT COUNT(*) AS c, MAX(r.i) AS m {rows}) AS f ON TRUE");
        let theirs = format!("SELECT l.k, (SELECT COUNT(*) {rows}) AS c, (SELECT MAX(r.i) {rows}) AS m FROM t AS l");
        check(&ours, &theirs, &Feed::new("t", splits, batch), &prefixes, &restarts, seed, true)?;
    }

    /// One value of all rows, or of those of the row's key, beside groups, in what they are by and in what is aggregated.
    #[test]
    fn values_beside_groups_add_up((splits, batch, prefixes, restarts, seed) in input(), value in pick(&["MAX(r.k)", "COUNT(*)", "MIN(r.i)"]),
        condition in condition(), by_key: bool, form in 0..4usize)
    {
        let tied = if by_key { if condition.is_empty() { "WHERE r.s = l.s" } else { "AND r.s = l.s" } } else { "" };
        // A condition that has an OR is one of several.
        let condition = condition.strip_prefix("WHERE ").map_or(String::new(), |c| format!("WHERE ({c})"));
        // A count of no rows at all is there when the input has ended.
        let value = if by_key || value != "COUNT(*)" { value } else { "SUM(r.k)" };
        let value = format!("(SELECT {value} FROM t AS r {condition} {tied})");
        let (ours, theirs) = match form {
            0 => {
                let sql = format!("SELECT l.s, COUNT(*) AS c, {value} AS v FROM t AS l GROUP BY l.s");
                (sql.clone(), sql)
            }
            1 => {
                let sql = format!("SELECT l.s, SUM(l.k) AS c FROM t AS l GROUP BY l.s HAVING COUNT(*) >= {value}");
                (sql.clone(), sql)
            }
            2 => (
                format!("SELECT l.k > {value} AS g, COUNT(*) AS c FROM t AS l GROUP BY l.k > {value}"),
                format!("SELECT g, COUNT(*) AS c FROM (SELECT l.k > {value} AS g FROM t AS l) AS q GROUP BY g"),
            ),
            _ => (
                format!("SELECT l.b, MAX({value}) AS m, COUNT(*) FILTER (WHERE l.k < {value}) AS c FROM t AS l GROUP BY l.b"),
                format!("SELECT b, MAX(v) AS m, COUNT(*) FILTER (WHERE k < v) AS c FROM (SELECT l.b, l.k, {value} AS v FROM t AS l) AS q GROUP BY b"),
            ),
        };
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
