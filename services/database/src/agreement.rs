//! Whether replicas that were in one place in the history had the same content there: pure.
//!
//! Each says once, when it has read the log to its end, what its whole content was at which position. Whoever wrote to a
//! file behind the program's back changed that and not the position.

use crate::position::{Position, Token};

/// What a replica says, instead of the content or instead of all, that could not compute its digest: nobody waits for it.
pub const NONE: &str = "-";

/// What a replica says of its content: the position, with the digest of all history up to there, then the content's.
#[must_use]
pub fn words(at: &Position, content: &str) -> String {
    format!("{}-{}-{:?}:{content}", at.generation, at.seq, at.chain)
}

/// What these words say of the content at a position; none if they are about another.
#[must_use]
pub fn of(words: &str, at: Token) -> Option<&str> {
    let (place, content) = words.split_once(':')?;
    let history = place.strip_prefix(&at.to_string())?;
    history.starts_with('-').then_some(content)
}

/// How a replica's content compares with that of others at its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It has not said what its content is.
    Unsaid,
    /// Nobody else has said anything of this position.
    Alone,
    /// More replicas have this content than any other.
    Agreed,
    /// These have another one, and it is not known which is right.
    Disputed(Vec<String>),
    /// This replica's content is the odd one out: these agree on another.
    Odd(Vec<String>),
}

/// Compares what a replica says with what others (names, words) say.
#[must_use]
pub fn judge(mine: &str, others: &[(String, String)]) -> Agreement {
    let mine = mine.split_once(':').filter(|(_, content)| *content != NONE);
    let Some((place, content)) = mine else { return Agreement::Unsaid };
    let here = others.iter().filter_map(|(name, words)| {
        let (their_place, theirs) = words.split_once(':')?;
        (their_place == place && theirs != NONE).then_some((name, theirs))
    });
    let here: Vec<_> = here.collect();
    let with = |content: &str| here.iter().filter(|(_, theirs)| *theirs == content).count();
    let mine = 1 + with(content);
    let names = |of: &dyn Fn(&str) -> bool| {
        here.iter().filter(|(_, theirs)| of(theirs)).map(|(name, _)| (*name).clone()).collect()
    };
    let rival = here.iter().map(|(_, theirs)| *theirs).filter(|theirs| *theirs != content);
    let Some(rival) = rival.max_by_key(|theirs| with(theirs)) else {
        return if mine > 1 { Agreement::Agreed } else { Agreement::Alone };
    };
    match with(rival) {
        most if most > mine => Agreement::Odd(names(&|theirs| theirs == rival)),
        most if most < mine => Agreement::Agreed,
        _ => Agreement::Disputed(names(&|theirs| theirs != content)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn say(all: &[&str]) -> Vec<(String, String)> {
        all.iter().enumerate().map(|(i, words)| (format!("r{i}"), (*words).to_owned())).collect()
    }

    #[test]
    fn who_differs_from_more_than_agree_with_it_is_the_odd_one() {
        let two = vec!["r0".to_owned(), "r1".to_owned()];
        assert_eq!(judge("1-5-c:x", &say(&["1-5-c:y", "1-5-c:y"])), Agreement::Odd(two.clone()));
        assert_eq!(judge("1-5-c:y", &say(&["1-5-c:x", "1-5-c:y"])), Agreement::Agreed);
        assert_eq!(judge("1-5-c:x", &say(&["1-5-c:y"])), Agreement::Disputed(vec!["r0".into()]));
        assert_eq!(judge("1-5-c:x", &say(&["1-5-c:y", "1-5-c:z"])), Agreement::Disputed(two));
    }

    #[test]
    fn words_are_about_one_position() {
        let at = Token { generation: 1, seq: 5 };
        assert_eq!(of("1-5-c:x", at), Some("x"));
        for elsewhere in ["1-55-c:x", "1-4-c:x", "11-5-c:x", "", "1-5", "1-5:x"] {
            assert_eq!(of(elsewhere, at), None, "{elsewhere}");
        }
        assert_eq!(of(NONE, at), None);
        assert_eq!(of("1-5-c:-", at), Some(NONE), "it tried, and could not read its content");
    }

    #[test]
    fn other_places_and_other_histories_say_nothing() {
        let elsewhere = say(&["1-6-c:y", "1-6-c:y", "2-5-c:y", "1-5-d:y", "1-5-d:y", "1-5-c:-", NONE, ""]);
        assert_eq!(judge("1-5-c:x", &elsewhere), Agreement::Alone);
        assert_eq!(judge(NONE, &say(&["1-5-c:y"])), Agreement::Unsaid);
        assert_eq!(judge("1-5-c:-", &say(&["1-5-c:y", "1-5-c:y"])), Agreement::Unsaid);
        assert_eq!(judge("", &[]), Agreement::Unsaid);
    }

    proptest! {
        /// Whatever all say: of one place never all are odd, and those who are odd name one that is not.
        #[test]
        fn never_is_everybody_odd(contents in prop::collection::vec(0..3_u8, 1..8)) {
            let all: Vec<_> = contents.iter().enumerate().map(|(i, c)| (format!("r{i}"), format!("1-5-c:{c}"))).collect();
            let of = |i: usize| {
                let others: Vec<_> = all.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, o)| o.clone()).collect();
                judge(&all[i].1, &others)
            };
            let is_odd = |i: usize| matches!(of(i), Agreement::Odd(_));
            prop_assert!((0..all.len()).any(|i| !is_odd(i)));
            for i in 0..all.len() {
                if let Agreement::Odd(names) = of(i) {
                    prop_assert!(names.len() > 1);
                    prop_assert!(names.iter().all(|name| !is_odd(all.iter().position(|(n, _)| n == name).unwrap())));
                }
            }
        }
    }
}
