//! The text of a completion while it grows.

use std::collections::HashSet;

use super::Tokenizer;
use crate::Result;

/// How many tokens are decoded again before the new ones, so that these are read in their context.
const CONTEXT: usize = 8;
/// How many tokens there are when all but the context is let go.
const LONGEST: usize = 4 * CONTEXT;

/// Decodes a completion piece by piece.
///
/// Each [`push`](Self::push) takes one token and gives the text that is certain by now. The pieces and what
/// [`finish`](Self::finish) gives are, one after the other, `decode` of all tokens. A piece never ends within a character: tokens that
/// spell a part of one are held back until the rest is there, and a run of byte tokens (`<0xE2>`) until it is over, because a later
/// byte can change how all of it reads.
///
/// The cost of a token does not grow with the completion: only the last few tokens are decoded again. (A run of byte tokens is
/// decoded once, when it ends.) This holds for every tokenizer whose text only grows at its end when a token is added, as those of
/// language models do.
///
/// ```
/// use rlvr::prompt::{CharTokenizer, TextStream, Tokenizer};
///
/// let tokenizer = CharTokenizer::new("0123456789+=", &["<answer>"])?;
/// let mut stream = TextStream::new(&tokenizer);
/// let mut text = String::new();
/// for id in tokenizer.encode("85<answer>")? {
///     text.extend(stream.push(id)?);
/// }
/// text += &stream.finish()?;
/// assert_eq!(text, "85<answer>");
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct TextStream<'a> {
    tokenizer: &'a dyn Tokenizer,
    /// Tokens that are a byte each, and make text only together.
    bytes: HashSet<u32>,
    /// The last tokens, of which decoding gives `shown` bytes that are out already.
    window: Vec<u32>,
    shown: usize,
}

impl<'a> TextStream<'a> {
    /// The stream of a completion whose first token comes next.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        let spelled = |byte: u8| {
            let token = format!("<0x{byte:02X}>");
            let id = tokenizer.token_id(&token)?;
            // Where the token is written as it is spelled it is text like any other.
            let is_text = tokenizer.decode(&[id]).is_ok_and(|text| text == token);
            (!is_text).then_some(id)
        };
        Self {
            tokenizer,
            bytes: (0..=u8::MAX).filter_map(spelled).collect(),
            window: Vec::new(),
            shown: 0,
        }
    }

    /// Takes the next token and gives the text that is certain by now, `None` if there is none that is new.
    ///
    /// # Errors
    /// As the tokenizer's [`decode`](Tokenizer::decode); the stream is then as it was before.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.window.push(id);
        if self.bytes.contains(&id) {
            return Ok(None);
        }
        let text = match self.tokenizer.decode(&self.window) {
            Ok(text) => text,
            Err(error) => {
                self.window.pop();
                return Err(error);
            }
        };
        // Bytes that do not make a character yet are decoded to one replacement character at the end.
        let certain = text.strip_suffix('\u{fffd}').unwrap_or(&text).len();
        let new = text.get(self.shown..certain).unwrap_or_default().to_owned();
        self.shown = self.shown.max(certain);
        if self.window.len() >= LONGEST {
            self.forget(&text)?;
        }
        Ok((!new.is_empty()).then_some(new))
    }

    /// The rest of the text, now that no token follows.
    ///
    /// # Errors
    /// As the tokenizer's `decode`.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        Ok(text.get(self.shown..).unwrap_or_default().to_owned())
    }

    /// Lets go of all tokens but the last, if what is not out yet can be told from these alone.
    fn forget(&mut self, text: &str) -> Result<()> {
        let held = text.get(self.shown..).unwrap_or_default();
        let last = &self.window[self.window.len() - CONTEXT..];
        let context = self.tokenizer.decode(last)?;
        // What comes first may be written in another way than what follows (without its space, say), so the new context has to
        // begin with something that is out.
        if let Some(shown) = context.strip_suffix(held)
            && !shown.is_empty()
        {
            self.shown = shown.len();
            self.window.drain(..self.window.len() - CONTEXT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Error;
    use proptest::prelude::*;

    /// Ids below 256 are bytes, the others words. A run of bytes that is not UTF-8 reads as one replacement character for each
    /// of its bytes (`in_runs`) or as far as it is none; the first space of all is dropped.
    struct Words {
        in_runs: bool,
        longest: AtomicUsize,
    }

    const WORDS: [&str; 6] = [" the", " sum", "s", "é", " ", ""];

    impl Words {
        fn new(in_runs: bool) -> Self {
            let longest = AtomicUsize::new(0);
            Self { in_runs, longest }
        }
    }

    impl Tokenizer for Words {
        fn encode(&self, _: &str) -> Result<Vec<u32>> {
            Ok(Vec::new())
        }

        fn decode(&self, ids: &[u32]) -> Result<String> {
            self.longest.fetch_max(ids.len(), Ordering::Relaxed);
            let (mut text, mut run) = (Vec::new(), Vec::new());
            for &id in ids.iter().chain([&u32::MAX]) {
                match u8::try_from(id) {
                    Ok(byte) => run.push(byte),
                    Err(_) => {
                        if self.in_runs && std::str::from_utf8(&run).is_err() {
                            text.extend("\u{fffd}".repeat(run.len()).bytes());
                            run.clear();
                        }
                        text.append(&mut run);
                        match WORDS.get(id as usize - 256) {
                            Some(word) => text.extend(word.bytes()),
                            None if id == u32::MAX => {}
                            None => {
                                let vocabulary = self.vocab_size();
                                return Err(Error::UnknownToken { id, vocabulary });
                            }
                        }
                    }
                }
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(text.strip_prefix(' ').map(str::to_owned).unwrap_or(text))
        }

        fn vocab_size(&self) -> usize {
            256 + WORDS.len()
        }

        fn token_id(&self, token: &str) -> Option<u32> {
            let byte = token.strip_prefix("<0x")?.strip_suffix('>')?;
            let byte = u32::from_str_radix(byte, 16).ok()?;
            self.in_runs.then_some(byte)
        }

        fn stop_tokens(&self) -> Vec<u32> {
            Vec::new()
        }
    }

    fn pieces(tokenizer: &Words, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(tokenizer);
        let mut pieces: Vec<String> = ids
            .iter()
            .map(|&id| stream.push(id).unwrap().unwrap_or_default())
            .collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn a_character_comes_whole() {
        // Four bytes between two words.
        let ids = [256, 0xf0, 0x9f, 0x98, 0x80, 257, 258];
        let lossy = pieces(&Words::new(false), &ids);
        assert_eq!(lossy, ["the", "", "", "", "😀", " sum", "s", ""]);
        let runs = pieces(&Words::new(true), &ids);
        assert_eq!(runs, ["the", "", "", "", "", "😀 sum", "s", ""]);
        // A byte too many spoils the run, so nothing of it may be out before.
        let spoiled = pieces(&Words::new(true), &[0xc3, 0xa9, 0x61, 0xff, 256]);
        assert_eq!(
            spoiled,
            ["", "", "", "", "\u{fffd}\u{fffd}\u{fffd}\u{fffd} the", ""]
        );
        // What never becomes a character is there at the end.
        assert_eq!(
            pieces(&Words::new(false), &[258, 0xc3]),
            ["s", "", "\u{fffd}"]
        );
    }

    #[test]
    fn an_id_that_cannot_be_decoded_changes_nothing() {
        let tokenizer = Words::new(true);
        let mut stream = TextStream::new(&tokenizer);
        assert_eq!(stream.push(256).unwrap().as_deref(), Some("the"));
        assert!(stream.push(1000).is_err());
        assert_eq!(stream.push(257).unwrap().as_deref(), Some(" sum"));
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[test]
    fn tokens_without_text_do_not_end_the_context() {
        let mut ids = vec![261; 100];
        (ids[0], ids[99]) = (256, 257);
        assert_eq!(pieces(&Words::new(true), &ids).concat(), "the sum");
    }

    #[test]
    fn the_cost_of_a_token_does_not_grow() {
        let tokenizer = Words::new(false);
        let ids: Vec<u32> = (0..5000).map(|i| 256 + i % 5).collect();
        let text = pieces(&tokenizer, &ids).concat();
        assert!(tokenizer.longest.load(Ordering::Relaxed) <= LONGEST);
        assert_eq!(text, tokenizer.decode(&ids).unwrap());
        // Nor where nothing ever becomes a character.
        let tokenizer = Words::new(false);
        let text = pieces(&tokenizer, &[0x80; 5000]).concat();
        assert!(tokenizer.longest.load(Ordering::Relaxed) <= LONGEST);
        assert_eq!(text, "\u{fffd}".repeat(5000));
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(
            ids in prop::collection::vec(prop_oneof![256u32..262, 0x7eu32..0x83, 0xc2u32..0xc4, 0xe2u32..0xe3, 0xf0u32..0xf1], 0..200),
            in_runs: bool,
        ) {
            let tokenizer = Words::new(in_runs);
            let whole = tokenizer.decode(&ids).unwrap();
            prop_assert_eq!(pieces(&tokenizer, &ids).concat(), whole);
        }
    }
}
