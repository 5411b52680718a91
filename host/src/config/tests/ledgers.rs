//! Who has a ledger, and who may have something remembered in it.

use super::*;

#[test]
fn who_has_a_ledger_is_fixed_by_the_plan() {
    let ledger = |more: &str| {
        parse(&format!("{SMALL}{more}"), base()).unwrap().handlers[0]
            .ledger
            .clone()
    };
    assert_eq!(ledger(""), None);
    assert_eq!(ledger("bucket = \"b\"").as_deref(), Some("b"));
    assert_eq!(ledger("publish = [\"a.b\"]").as_deref(), Some("mesh"));
    assert_eq!(ledger("ledger = true").as_deref(), Some("mesh"));
}

#[test]
fn message_ids_need_a_ledger_that_remembers_them() {
    let text = format!("{SMALL}identity = \"message-id\"");
    assert!(problems(&text).contains("handlers.h.identity: message ids are remembered in a ledger"));
    assert!(parse(&format!("{text}\nledger = true"), base()).is_ok());
}
