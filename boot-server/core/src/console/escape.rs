//! `~.` at the beginning of a line leaves a console, as with ssh(1) and cu(1); `~t` takes over typing, `~?` helps, `~~`
//! is one `~`.

/// What was typed, without escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the machine.
    Octets(Vec<u8>),
    /// Leave.
    Leave,
    /// Take over typing.
    Take,
    /// Show what escapes there are.
    Help,
}

/// What `~?` shows.
pub const HELP: &str =
    "\r\n~.  leave   ~t  take over typing   ~~  type ~   ~?  this (each at the beginning of a line)\r\n";

/// Finds escapes in what is typed.
#[derive(Debug, Clone, Default)]
pub struct Escape {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    LineStart,
    Tilde,
    Within,
}

impl Escape {
    /// Takes in what was typed and says what it means, in order. Nothing follows [`Typed::Leave`].
    pub fn handle(&mut self, octets: &[u8]) -> Vec<Typed> {
        let (mut all, mut plain) = (Vec::new(), Vec::new());
        for octet in octets {
            let special = match (self.state, octet) {
                (State::LineStart, b'~') => {
                    self.state = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => Some(Typed::Leave),
                (State::Tilde, b't') => Some(Typed::Take),
                (State::Tilde, b'?') => Some(Typed::Help),
                (State::Tilde, b'~') => None,
                (State::Tilde, _) => {
                    plain.push(b'~');
                    None
                }
                _ => None,
            };
            if let Some(special) = special {
                self.state = State::LineStart;
                if !plain.is_empty() {
                    all.push(Typed::Octets(std::mem::take(&mut plain)));
                }
                all.push(special);
                if all.last() == Some(&Typed::Leave) {
                    return all;
                }
                continue;
            }
            plain.push(*octet);
            self.state = if matches!(octet, b'\r' | b'\n') { State::LineStart } else { State::Within };
        }
        if !plain.is_empty() {
            all.push(Typed::Octets(plain));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn octets(text: &str) -> Typed {
        Typed::Octets(text.as_bytes().to_vec())
    }

    #[test]
    fn escapes_are_at_the_beginning_of_a_line() {
        let typed = |text: &str| Escape::default().handle(text.as_bytes());
        assert_eq!(typed("~."), [Typed::Leave]);
        assert_eq!(typed("ls\r~.x"), [octets("ls\r"), Typed::Leave]);
        assert_eq!(typed("ls ~."), [octets("ls ~.")]);
        assert_eq!(typed("~~."), [octets("~.")]);
        assert_eq!(typed("~/bin\r"), [octets("~/bin\r")]);
        assert_eq!(typed("~t~?a"), [Typed::Take, Typed::Help, octets("a")]);
        assert_eq!(typed("~"), []);
    }

    proptest! {
        /// It does not matter how what is typed is cut into pieces, and text without `~` passes as it is.
        #[test]
        fn pieces_make_no_difference(text in "[a~.?t\r ]{0,40}", cut in 0_usize..40) {
            let whole = Escape::default().handle(text.as_bytes());
            let mut escape = Escape::default();
            let cut = cut.min(text.len());
            let mut parts = escape.handle(&text.as_bytes()[..cut]);
            if parts.last() != Some(&Typed::Leave) {
                parts.extend(escape.handle(&text.as_bytes()[cut..]));
            }
            let mut joined: Vec<Typed> = Vec::new();
            for part in parts {
                match (joined.last_mut(), part) {
                    (Some(Typed::Octets(before)), Typed::Octets(more)) => before.extend(more),
                    (_, part) => joined.push(part),
                }
            }
            prop_assert_eq!(joined, whole);
        }
    }
}
