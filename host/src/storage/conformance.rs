//! What every [`Storage`] must do, whatever it is made of. Each backend's tests
//! run this against an empty store.

use super::{Expected, Storage, StorageError};
use crate::model::function::{Function, GuestKind, Revision};
use crate::model::ids::{Digest, FunctionId, RevisionNumber};
use crate::model::spec::FunctionSpec;

pub(crate) fn id(tenant: &str, name: &str) -> FunctionId {
    FunctionId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
}

pub(crate) fn revision(seed: u8) -> Revision {
    let spec = r#"{"routes": ["POST /resize/{width}"], "memory": "256MiB", "timeout": "10s",
        "concurrency": 7, "env": {"A": "ü\n"}, "allow_hosts": ["https://example.com"]}"#;
    Revision {
        number: RevisionNumber(999),
        digest: Digest([seed; 32]),
        component_bytes: 1 << 40,
        kind: if seed.is_multiple_of(2) { GuestKind::Http02 } else { GuestKind::Cgi03 },
        spec: FunctionSpec::from_json(spec.as_bytes()).unwrap(),
        created_unix_ms: 1_700_000_000_000 + u64::from(seed),
    }
}

fn numbers(function: &Function) -> (Option<u32>, Option<u32>, Vec<u32>) {
    let revisions = function.revisions.iter().map(|revision| revision.number.0).collect();
    (function.active.map(|n| n.0), function.previous.map(|n| n.0), revisions)
}

fn conflict(result: Result<impl std::fmt::Debug, StorageError>) -> Option<u32> {
    match result {
        Err(StorageError::Conflict { active }) => active.map(|number| number.0),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// Runs every promise of [`Storage`] against an empty store.
pub(crate) async fn conformance(storage: &dyn Storage) {
    assert_eq!(storage.functions().await.unwrap(), []);
    adding(storage).await;
    activating(storage).await;
    conflicts(storage).await;
    deleting(storage).await;
    ordering(storage).await;
    racing(storage).await;
}

async fn adding(storage: &dyn Storage) {
    let id = id("default", "adding");
    let first = storage.add_revision(&id, revision(1), false, Expected::Absent).await.unwrap();
    assert_eq!(numbers(&first), (None, None, vec![1]), "not activated");
    let second = storage.add_revision(&id, revision(2), true, Expected::Any).await.unwrap();
    assert_eq!(numbers(&second), (Some(2), None, vec![1, 2]));
    let third = storage.add_revision(&id, revision(3), true, Expected::Any).await.unwrap();
    assert_eq!(numbers(&third), (Some(3), Some(2), vec![1, 2, 3]));
    // Everything but the number comes back as it went in.
    for (index, seed) in [1, 2, 3].into_iter().enumerate() {
        let mut expected = revision(seed);
        expected.number = RevisionNumber(u32::from(seed));
        assert_eq!(third.revisions[index], expected);
    }
    assert_eq!(storage.functions().await.unwrap(), [third]);
}

async fn activating(storage: &dyn Storage) {
    let id = id("default", "activating");
    for seed in [1, 2] {
        storage.add_revision(&id, revision(seed), true, Expected::Any).await.unwrap();
    }
    let back = storage.activate(&id, RevisionNumber(1), Expected::Any).await.unwrap();
    assert_eq!(numbers(&back), (Some(1), Some(2), vec![1, 2]));
    let again = storage.activate(&id, RevisionNumber(1), Expected::Any).await.unwrap();
    assert_eq!(again, back, "activating the active one changes nothing");
    let missing = storage.activate(&id, RevisionNumber(3), Expected::Any).await;
    assert_eq!(conflict(missing), Some(1));
    storage.delete(&id, Expected::Any).await.unwrap();
}

async fn conflicts(storage: &dyn Storage) {
    let id = id("default", "conflicts");
    let [one, two] = [RevisionNumber(1), RevisionNumber(2)];
    let new = storage.add_revision(&id, revision(1), true, Expected::Active(one)).await;
    assert_eq!(conflict(new), None);
    assert_eq!(conflict(storage.activate(&id, one, Expected::Any).await), None);
    assert_eq!(conflict(storage.delete(&id, Expected::Any).await), None);
    let before = storage.add_revision(&id, revision(1), true, Expected::Absent).await.unwrap();
    for expected in [Expected::Absent, Expected::Active(two)] {
        let added = storage.add_revision(&id, revision(2), true, expected).await;
        assert_eq!(conflict(added), Some(1));
        assert_eq!(conflict(storage.activate(&id, one, expected).await), Some(1));
        assert_eq!(conflict(storage.delete(&id, expected).await), Some(1));
    }
    let functions = storage.functions().await.unwrap();
    assert!(functions.contains(&before), "a conflict changes nothing");
    let after = storage.add_revision(&id, revision(2), true, Expected::Active(one)).await.unwrap();
    assert_eq!(numbers(&after), (Some(2), Some(1), vec![1, 2]), "nor does it use up a number");
    storage.delete(&id, Expected::Active(two)).await.unwrap();
}

async fn deleting(storage: &dyn Storage) {
    let id = id("default", "deleting");
    for seed in [1, 2, 3] {
        storage.add_revision(&id, revision(seed), true, Expected::Any).await.unwrap();
    }
    storage.delete(&id, Expected::Any).await.unwrap();
    assert!(storage.functions().await.unwrap().iter().all(|function| function.id != id));
    assert_eq!(conflict(storage.delete(&id, Expected::Any).await), None);
    let anew = storage.add_revision(&id, revision(4), true, Expected::Absent).await.unwrap();
    assert_eq!(numbers(&anew), (Some(4), None, vec![4]), "numbers never repeat");
    storage.delete(&id, Expected::Any).await.unwrap();
    let anew = storage.add_revision(&id, revision(5), false, Expected::Absent).await.unwrap();
    assert_eq!(numbers(&anew), (None, None, vec![5]));
    storage.delete(&id, Expected::Any).await.unwrap();
}

async fn ordering(storage: &dyn Storage) {
    let ids = [id("default", "a"), id("b", "a"), id("a", "b"), id("a", "a-b"), id("a", "a")];
    for id in &ids {
        storage.add_revision(id, revision(1), true, Expected::Absent).await.unwrap();
    }
    let listed: Vec<FunctionId> =
        storage.functions().await.unwrap().into_iter().map(|function| function.id).collect();
    assert!(listed.is_sorted(), "{listed:?}");
    assert!(ids.iter().all(|id| listed.contains(id)), "tenants are held apart: {listed:?}");
}

async fn racing(storage: &dyn Storage) {
    let id = id("default", "racing");
    let writes = (0..20).map(|seed| storage.add_revision(&id, revision(seed), true, Expected::Any));
    let mut given: Vec<u32> = futures::future::try_join_all(writes)
        .await
        .unwrap()
        .iter()
        .map(|function| function.revisions.last().unwrap().number.0)
        .collect();
    given.sort_unstable();
    assert_eq!(given, (1..=20).collect::<Vec<_>>(), "each its own number");
    let last = Expected::Active(RevisionNumber(20));
    let writes = (0..10).map(|seed| storage.add_revision(&id, revision(seed), true, last));
    let results = futures::future::join_all(writes).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    // Whichever came last of the twenty has their highest number and is active.
    assert_eq!(won, 1, "one of those who saw it wins");
    storage.delete(&id, Expected::Any).await.unwrap();
}
