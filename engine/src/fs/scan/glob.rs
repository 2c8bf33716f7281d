//! Globs over paths: `?` and `[...]` match one byte of a component, `*` any bytes of one
//! component, `**` any bytes at all, `**/` any number of whole components. A backslash takes the
//! next byte literally. A pattern without a slash is matched against the last component, so that
//! `*.log` works at every depth; any other against the whole path below the item's root. A
//! pattern that ends with a slash matches directories only.
//!
//! A pattern is run as a set of states, one step for each byte: time is at most the product of
//! the lengths, whatever the pattern.

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 4096;

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    /// Any byte but a slash.
    One,
    /// Any bytes but slashes.
    Star,
    /// Any bytes.
    Across,
    /// Nothing, or any bytes that end with a slash.
    Components,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

/// One compiled pattern.
#[derive(Clone, Debug)]
struct Glob {
    tokens: Vec<Token>,
    last_component: bool,
    directories_only: bool,
}

/// The patterns of a scan; an entry is left out if one of them matches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globs {
    globs: Vec<Glob>,
}

impl Globs {
    /// Fails with the pattern that cannot be read, and why.
    pub fn new(patterns: &[String]) -> Result<Self, (String, &'static str)> {
        let globs = patterns
            .iter()
            .map(|pattern| Glob::new(pattern.as_bytes()).map_err(|why| (pattern.clone(), why)))
            .collect::<Result<_, _>>()?;
        Ok(Self { globs })
    }

    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// `path` is relative to the item's root, without slashes at its ends.
    pub fn matches(&self, path: &[u8], directory: bool) -> bool {
        self.globs.iter().any(|glob| glob.matches(path, directory))
    }
}

impl Glob {
    fn new(pattern: &[u8]) -> Result<Self, &'static str> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err("the pattern is too long");
        }
        let (pattern, directories_only) = match pattern {
            [head @ .., b'/'] => (head, true),
            all => (all, false),
        };
        // What says that it crosses components is about paths, not about a name.
        let crosses = pattern.windows(2).any(|pair| pair == b"**");
        let last_component = !crosses && !pattern.contains(&b'/');
        let mut rest = pattern.strip_prefix(b"/").unwrap_or(pattern);
        if rest.is_empty() {
            return Err("the pattern is empty");
        }
        let mut tokens = Vec::new();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            tokens.push(match byte {
                b'?' => Token::One,
                b'*' => match rest {
                    [b'*', b'/', tail @ ..] => {
                        rest = tail;
                        Token::Components
                    }
                    [b'*', tail @ ..] => {
                        rest = tail;
                        Token::Across
                    }
                    _ => Token::Star,
                },
                b'\\' => match rest.split_first() {
                    Some((&literal, tail)) => {
                        rest = tail;
                        Token::Byte(literal)
                    }
                    None => return Err("the pattern ends with a backslash"),
                },
                b'[' => class(&mut rest)?,
                literal => Token::Byte(literal),
            });
        }
        Ok(Self {
            tokens,
            last_component,
            directories_only,
        })
    }

    fn matches(&self, path: &[u8], directory: bool) -> bool {
        if self.directories_only && !directory {
            return false;
        }
        let text = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) if self.last_component => &path[slash + 1..],
            _ => path,
        };
        let end = self.tokens.len();
        let mut states = vec![false; end + 1];
        let mut next = vec![false; end + 1];
        self.enter(&mut states, 0);
        for &byte in text {
            next.fill(false);
            let mut any = false;
            for state in (0..end).filter(|state| states[*state]) {
                any = true;
                match &self.tokens[state] {
                    Token::Byte(literal) if *literal == byte => self.enter(&mut next, state + 1),
                    Token::One if byte != b'/' => self.enter(&mut next, state + 1),
                    Token::Class { negated, ranges } if byte != b'/' => {
                        let inside = ranges
                            .iter()
                            .any(|(low, high)| (low..=high).contains(&&byte));
                        if inside != *negated {
                            self.enter(&mut next, state + 1);
                        }
                    }
                    Token::Star if byte != b'/' => self.enter(&mut next, state),
                    Token::Across => self.enter(&mut next, state),
                    Token::Components => {
                        next[state] = true;
                        if byte == b'/' {
                            self.enter(&mut next, state + 1);
                        }
                    }
                    _ => {}
                }
            }
            if !any {
                return false;
            }
            std::mem::swap(&mut states, &mut next);
        }
        states[end]
    }

    /// Enters a state, and those behind it that need no byte.
    fn enter(&self, states: &mut [bool], mut state: usize) {
        loop {
            states[state] = true;
            match self.tokens.get(state) {
                Some(Token::Star | Token::Across | Token::Components) => state += 1,
                _ => return,
            }
        }
    }
}

/// Reads what follows a `[`.
fn class(rest: &mut &[u8]) -> Result<Token, &'static str> {
    const OPEN: &str = "a [ has no ]";
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        let (&low, tail) = rest.split_first().ok_or(OPEN)?;
        *rest = tail;
        if low == b']' && !ranges.is_empty() {
            return Ok(Token::Class { negated, ranges });
        }
        match *rest {
            [b'-', high, tail @ ..] if *high != b']' => {
                ranges.push((low, *high));
                *rest = tail;
            }
            _ => ranges.push((low, low)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Globs;

    fn matches(pattern: &str, path: &str) -> bool {
        let globs = Globs::new(&[pattern.to_owned()]).expect("a pattern");
        globs.matches(path.as_bytes(), false)
    }

    #[test]
    fn a_star_stays_in_its_component() {
        assert!(matches("*.log", "a.log"));
        assert!(matches("*.log", "deep/below/a.log"));
        assert!(!matches("*.log", "a.log/file"));
        assert!(matches("a/*.log", "a/x.log"));
        assert!(!matches("a/*.log", "a/b/x.log"));
        assert!(!matches("a/*.log", "c/a/x.log"));
        assert!(matches("/top", "top"));
        assert!(!matches("/top", "a/top"));
    }

    #[test]
    fn two_stars_cross_components() {
        assert!(matches("a/**", "a/b/c"));
        assert!(matches("a/**/c", "a/c"));
        assert!(matches("a/**/c", "a/x/y/c"));
        assert!(!matches("a/**/c", "a/x/yc"));
        assert!(matches("**/c", "c"));
        assert!(matches("a**c", "a/x/c"));
    }

    #[test]
    fn classes_and_literals() {
        assert!(matches("[a-c]?", "bz"));
        assert!(!matches("[!a-c]", "b"));
        assert!(matches("[]x]", "]"));
        assert!(matches("\\*", "*"));
        assert!(!matches("\\*", "x"));
        assert!(matches("\\[.txt", "[.txt"));
        assert!(Globs::new(&["[a".to_owned()]).is_err());
        assert!(Globs::new(&["a\\".to_owned()]).is_err());
        assert!(Globs::new(&["/".to_owned()]).is_err());
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_directory() {
        let globs = Globs::new(&["cache/".to_owned()]).expect("a pattern");
        assert!(globs.matches(b"a/cache", true));
        assert!(!globs.matches(b"a/cache", false));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(500) + "b/x";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }
}
