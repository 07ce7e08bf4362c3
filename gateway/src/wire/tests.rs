use std::time::Duration;

use beatkeeper_core::{
    carriers::{
        frames::{Down, Incarnation, InstanceId, Question, Sequence, Term, Tick, Up, Verdict},
        rights::{BoundPod, Identity, Refusal},
    },
    vocabulary::{key::Key, pace::Pace},
};
use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    codec::{Frames, put_down, put_up},
    down::FromReplica,
};

const LIMIT: usize = 1 << 16;

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9.:-]{1,253}"
}

fn ids() -> impl Strategy<Value = Vec<InstanceId>> {
    prop::collection::vec(any::<u32>().prop_map(InstanceId), 0..300)
}

fn identity() -> impl Strategy<Value = Identity> {
    let pod = (name(), name());
    let pod = pod.prop_map(|(name, uid)| BoundPod { name: name.into(), uid: uid.into() });
    (name(), prop::option::of(pod)).prop_map(|(user, pod)| Identity { user: user.into(), pod })
}

fn up() -> impl Strategy<Value = Up> {
    prop_oneof![
        (name(), any::<u64>(), any::<Option<u64>>()).prop_map(|(pod, epoch, term)| Up::Hello {
            incarnation: Incarnation { pod: pod.into(), epoch },
            term: term.map(Term),
        }),
        (any::<u32>(), name(), name(), identity(), any::<bool>()).prop_map(
            |(id, namespace, name, identity, allowed)| Up::Introduce {
                id: InstanceId(id),
                lease: Key::new(namespace, name),
                identity,
                allowed,
            }
        ),
        (any::<u64>(), ids()).prop_map(|(up_to, ids)| Up::Since { up_to: Sequence(up_to), ids }),
        (any::<u64>(), any::<u64>(), any::<Option<u64>>(), ids()).prop_map(
            |(sequence, echo, answers, ids)| Up::Batch {
                sequence: Sequence(sequence),
                echo: Tick(echo),
                answers: answers.map(Question),
                ids: ids.into(),
            }
        ),
        Just(Up::Leaving),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        (1..1_000_000u64, 1..1_000_000u64).prop_map(|(interval, slack)| Verdict::Allowed(Pace {
            ttl: Duration::from_millis(interval + slack),
            interval: Duration::from_millis(interval),
        })),
        Just(Verdict::Unknown),
        (name(), name()).prop_map(|(user, namespace)| Verdict::Refused(Refusal::OtherNamespace {
            user: user.into(),
            namespace,
        })),
        (name(), name(), name()).prop_map(|(lease, owner, found)| Verdict::Refused(
            Refusal::OtherPod { lease, owner, found }
        )),
        (name(), name(), name()).prop_map(|(user, verb, lease)| Verdict::Refused(
            Refusal::LacksRight { user: user.into(), verb: verb.into(), lease }
        )),
        name().prop_map(|text| Verdict::Refused(Refusal::Other(text.into()))),
    ]
}

fn down() -> impl Strategy<Value = Down> {
    prop_oneof![
        any::<Option<(u64, u64)>>().prop_map(|have| Down::Hello {
            have: have.map(|(epoch, batch)| (epoch, Sequence(batch))),
        }),
        any::<u64>().prop_map(|micros| Down::Tick(Tick(micros))),
        any::<u64>().prop_map(|term| Down::Leads(Term(term))),
        (any::<u64>(), any::<Option<u64>>()).prop_map(|(question, term)| Down::Ask {
            question: Question(question),
            term: term.map(Term),
        }),
        (any::<u64>(), any::<u64>(), ids()).prop_map(|(batch, term, not_held)| Down::Acknowledge {
            batch: Sequence(batch),
            term: Term(term),
            not_held,
        }),
        (any::<u32>(), verdict(), any::<u64>()).prop_map(|(id, verdict, term)| Down::Verdict {
            id: InstanceId(id),
            verdict,
            term: Term(term),
        }),
    ]
}

/// All that a decoder finds in bytes that come in pieces.
fn in_pieces<T>(
    bytes: &[u8],
    piece: usize,
    mut next: impl FnMut(&mut Frames, &mut BytesMut) -> Option<T>,
) -> Vec<T> {
    let (mut frames, mut buffer, mut found) = (Frames::new(LIMIT), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        found.extend(std::iter::from_fn(|| next(&mut frames, &mut buffer)));
    }
    found
}

proptest! {
    #[test]
    fn frames_of_a_gateway_come_out_as_they_went_in_whatever_the_pieces(
        sent in prop::collection::vec(up(), 0..8),
        piece in 1..5000usize,
    ) {
        let mut bytes = BytesMut::new();
        for frame in &sent {
            put_up(frame, LIMIT, &mut bytes).unwrap();
        }
        let got = in_pieces(&bytes, piece, |frames, buffer| frames.next_up(buffer).unwrap());
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn frames_of_a_replica_come_out_as_they_went_in_whatever_the_pieces(
        sent in prop::collection::vec(down(), 0..8),
        piece in 1..5000usize,
    ) {
        let mut bytes = BytesMut::new();
        for frame in &sent {
            put_down(frame, LIMIT, &mut bytes).unwrap();
        }
        let got = in_pieces(&bytes, piece, |frames, buffer| frames.next_down(buffer).unwrap());
        prop_assert_eq!(got, sent.into_iter().map(FromReplica::Frame).collect::<Vec<_>>());
    }

    #[test]
    fn whatever_the_bytes_are_they_are_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let (mut frames, mut buffer) = (Frames::new(LIMIT), BytesMut::from(&bytes[..]));
        while let Ok(Some(_)) = frames.next_up(&mut buffer) {}
        let (mut frames, mut buffer) = (Frames::new(LIMIT), BytesMut::from(&bytes[..]));
        while let Ok(Some(_)) = frames.next_down(&mut buffer) {}
    }

    #[test]
    fn a_good_frame_with_a_bit_that_was_turned_is_a_frame_or_an_error(
        frame in up(),
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut bytes = BytesMut::new();
        put_up(&frame, LIMIT, &mut bytes).unwrap();
        let place = 4 + place.index(bytes.len() - 4);
        bytes[place] ^= 1 << bit;
        let _ = Frames::new(LIMIT).next_up(&mut bytes);
    }
}

#[test]
fn a_frame_that_is_too_long_is_neither_sent_nor_taken() {
    let ids = (0..100_000).map(InstanceId).collect();
    let long = Up::Since { up_to: Sequence(1), ids };
    let mut bytes = BytesMut::from(&b"before"[..]);
    assert!(put_up(&long, LIMIT, &mut bytes).is_err());
    assert_eq!(&bytes[..], b"before");
    let mut bytes = BytesMut::new();
    put_up(&long, usize::MAX, &mut bytes).unwrap();
    let error = Frames::new(LIMIT).next_up(&mut bytes).unwrap_err();
    assert_eq!(error.to_string(), "a frame is longer than 65536 bytes");
}

/// A message in which field 100 is a text, as a later version may have it.
fn with_a_later_field(frame: &Up) -> BytesMut {
    let mut bytes = BytesMut::new();
    put_up(frame, LIMIT, &mut bytes).unwrap();
    bytes.extend_from_slice(&[0xa2, 0x06, 2, b'h', b'i']);
    let length = u32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let mut bytes = BytesMut::new();
    // A kind that this version does not know, and then one that it knows with a field that it does not.
    bytes.extend_from_slice(&[0, 0, 0, 5, 0xa2, 0x06, 2, b'h', b'i']);
    bytes.extend_from_slice(&with_a_later_field(&Up::Leaving));
    assert_eq!(Frames::new(LIMIT).next_up(&mut bytes).unwrap(), Some(Up::Leaving));
    assert!(bytes.is_empty());
}

#[test]
fn a_refusal_of_a_later_version_is_told_in_its_words() {
    // A verdict on instance 1 in term 1: a refusal with the text `no` and a kind with number 100.
    let verdict = [0x08, 1, 0x10, 1, 0x22, 9, 0x0a, 2, b'n', b'o', 0xa2, 0x06, 2, b'h', b'i'];
    let mut bytes = BytesMut::new();
    let length = u8::try_from(verdict.len()).unwrap();
    bytes.extend_from_slice(&[0, 0, 0, length + 2, 0x3a, length]);
    bytes.extend_from_slice(&verdict);
    let frame = Frames::new(LIMIT).next_down(&mut bytes).unwrap();
    let verdict = Verdict::Refused(Refusal::Other("no".into()));
    let expected = Down::Verdict { id: InstanceId(1), verdict, term: Term(1) };
    assert_eq!(frame, Some(FromReplica::Frame(expected)));
}

#[test]
fn an_error_names_the_kind_and_the_field() {
    let named = |frame: &Up| {
        let mut bytes = BytesMut::new();
        put_up(frame, LIMIT, &mut bytes).unwrap();
        Frames::new(LIMIT).next_up(&mut bytes).unwrap_err().to_string()
    };
    let incarnation = Incarnation { pod: "".into(), epoch: 1 };
    assert_eq!(
        named(&Up::Hello { incarnation, term: None }),
        "a message of the kind Hello has no pod"
    );
    let introduce = |namespace: &str, user: &str| Up::Introduce {
        id: InstanceId(1),
        lease: Key::new(namespace, "a"),
        identity: Identity { user: user.into(), pod: None },
        allowed: false,
    };
    assert!(named(&introduce("a\nb", "u")).contains("Introduce has a namespace that is no name"));
    assert!(
        named(&introduce("a", &"u".repeat(513))).contains("Introduce has a user that is no name")
    );
    let mut bytes = BytesMut::new();
    let pace = Pace { ttl: Duration::from_secs(1), interval: Duration::from_secs(2) };
    let (id, term) = (InstanceId(1), Term(1));
    let verdict = Verdict::Allowed(pace);
    put_down(&Down::Verdict { id, verdict, term }, LIMIT, &mut bytes).unwrap();
    let error = Frames::new(LIMIT).next_down(&mut bytes).unwrap_err().to_string();
    assert!(error.contains("a ttl of 1000 ms and an interval of 2000 ms"), "{error}");
}
