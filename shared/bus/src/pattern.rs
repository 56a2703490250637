//! AMQP topic patterns: words between dots, `*` is one word, `#` is any number of words (AMQP 0-9-1, section 3.1.3.3).

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Word>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Exactly(String),
    Any,
    Rest,
}

impl Pattern {
    /// Every text is a pattern: what is neither `*` nor `#` is a word that must be there.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(
            text.split('.')
                .map(|word| match word {
                    "*" => Word::Any,
                    "#" => Word::Rest,
                    other => Word::Exactly(other.to_owned()),
                })
                .collect(),
        )
    }

    /// Whether `topic` matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        // As globs are matched: on a mismatch, let the last `#` take one word more. Linear in practice,
        // and never worse than words × pattern.
        let (mut pattern, mut rest) = (0, Some(topic));
        let mut last: Option<(usize, Option<&str>)> = None;
        loop {
            match (self.0.get(pattern), rest) {
                (Some(Word::Rest), here) => {
                    last = Some((pattern, here));
                    pattern += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(word), Some(text)) => {
                    let (head, tail) = split(text);
                    if matches!(word, Word::Any) || matches!(word, Word::Exactly(w) if w == head) {
                        (pattern, rest) = (pattern + 1, tail);
                        continue;
                    }
                }
                _ => {}
            }
            let Some((at, Some(text))) = last else { return false };
            let tail = split(text).1;
            last = Some((at, tail));
            (pattern, rest) = (at + 1, tail);
        }
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((head, tail)) => (head, Some(tail)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, written down as it is said.
    fn model(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=topic.len()).any(|n| model(rest, &topic[n..])),
            (["*", p @ ..], [_, t @ ..]) => model(p, t),
            ([w, p @ ..], [v, t @ ..]) => w == v && model(p, t),
            _ => false,
        }
    }

    #[test]
    fn words_stars_and_hashes() {
        for (pattern, topic, expected) in [
            ("supervision.#", "supervision", true),
            ("supervision.#", "supervision.node.x", true),
            ("supervision.#", "supervisions", false),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("#", "anything.at.all", true),
            ("a.#.z", "a.z", true),
            ("a.#.z", "a.b.c.z", true),
            ("a.#.z", "a.b.c", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(topic), expected, "{pattern} {topic}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 1..6),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..6),
        ) {
            let (p, t) = (pattern.join("."), topic.join("."));
            prop_assert_eq!(Pattern::new(&p).matches(&t), model(&pattern, &topic));
        }
    }
}
