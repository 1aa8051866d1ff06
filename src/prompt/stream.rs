//! Incremental decoding of a completion.

use std::collections::HashSet;

use super::Tokenizer;
use crate::Result;

/// The number of previous tokens that are decoded together with new ones, as their context.
const CONTEXT: usize = 8;
/// The length of the window at which all tokens but the context are dropped.
const LONGEST: usize = 4 * CONTEXT;

/// Decodes a completion token by token.
///
/// Each [`push`](Self::push) takes one token and returns the new text that later tokens cannot
/// change. The returned texts and that of [`finish`](Self::finish), concatenated, equal `decode` of
/// all tokens. A text never ends within a character: tokens of an incomplete character are held
/// back until it is complete, and a run of byte tokens (`<0xE2>`) until it ends, because a later
/// byte can change the text of the whole run.
///
/// The cost per token does not grow with the completion, because only the last few tokens are
/// decoded again. (A run of byte tokens is decoded once, when it ends.) The tokenizer must be one
/// whose text only grows at the end when a token is added, as those of language models are.
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
    /// The byte tokens.
    bytes: HashSet<u32>,
    /// The last tokens; the first `shown` bytes of their text have been returned.
    window: Vec<u32>,
    shown: usize,
}

impl<'a> TextStream<'a> {
    /// Creates a stream for a new completion.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        let spelled = |byte: u8| {
            let token = format!("<0x{byte:02X}>");
            let id = tokenizer.token_id(&token)?;
            // A token that is decoded literally is an ordinary token.
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

    /// Takes the next token and returns the new text that is final, or `None` if there is none.
    ///
    /// # Errors
    /// The same as the tokenizer's [`decode`](Tokenizer::decode). The stream is unchanged in this
    /// case.
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
        // An incomplete character at the end is decoded as one replacement character.
        let certain = text.strip_suffix('\u{fffd}').unwrap_or(&text).len();
        let new = text.get(self.shown..certain).unwrap_or_default().to_owned();
        self.shown = self.shown.max(certain);
        if self.window.len() >= LONGEST {
            self.forget(&text)?;
        }
        Ok((!new.is_empty()).then_some(new))
    }

    /// Returns the rest of the text after the last token.
    ///
    /// # Errors
    /// The same as the tokenizer's [`decode`](Tokenizer::decode).
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        Ok(text.get(self.shown..).unwrap_or_default().to_owned())
    }

    /// Drops all tokens but the last few, if these determine the text that is still held back.
    fn forget(&mut self, text: &str) -> Result<()> {
        let held = text.get(self.shown..).unwrap_or_default();
        let last = &self.window[self.window.len() - CONTEXT..];
        let context = self.tokenizer.decode(last)?;
        // The first token may be decoded differently from the following ones, for example without
        // its space, so the new context has to start with text that has been returned.
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

    /// Ids below 256 are bytes, the others words. In a run of bytes that is not UTF-8, all bytes
    /// become replacement characters (`in_runs`), or only the invalid ones. A leading space is
    /// dropped.
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
    fn characters_are_never_split() {
        // Four bytes between two words.
        let ids = [256, 0xf0, 0x9f, 0x98, 0x80, 257, 258];
        let lossy = pieces(&Words::new(false), &ids);
        assert_eq!(lossy, ["the", "", "", "", "😀", " sum", "s", ""]);
        let runs = pieces(&Words::new(true), &ids);
        assert_eq!(runs, ["the", "", "", "", "", "😀 sum", "s", ""]);
        // An invalid last byte changes the text of the whole run, so none of it is returned early.
        let spoiled = pieces(&Words::new(true), &[0xc3, 0xa9, 0x61, 0xff, 256]);
        assert_eq!(
            spoiled,
            ["", "", "", "", "\u{fffd}\u{fffd}\u{fffd}\u{fffd} the", ""]
        );
        // `finish` returns an incomplete character.
        assert_eq!(
            pieces(&Words::new(false), &[258, 0xc3]),
            ["s", "", "\u{fffd}"]
        );
    }

    #[test]
    fn a_failed_push_leaves_the_stream_unchanged() {
        let tokenizer = Words::new(true);
        let mut stream = TextStream::new(&tokenizer);
        assert_eq!(stream.push(256).unwrap().as_deref(), Some("the"));
        assert!(stream.push(1000).is_err());
        assert_eq!(stream.push(257).unwrap().as_deref(), Some(" sum"));
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[test]
    fn tokens_without_text_do_not_replace_the_context() {
        let mut ids = vec![261; 100];
        (ids[0], ids[99]) = (256, 257);
        assert_eq!(pieces(&Words::new(true), &ids).concat(), "the sum");
    }

    #[test]
    fn the_number_of_tokens_decoded_at_once_is_bounded() {
        let tokenizer = Words::new(false);
        let ids: Vec<u32> = (0..5000).map(|i| 256 + i % 5).collect();
        let text = pieces(&tokenizer, &ids).concat();
        assert!(tokenizer.longest.load(Ordering::Relaxed) <= LONGEST);
        assert_eq!(text, tokenizer.decode(&ids).unwrap());
        // The same holds if no character is ever completed.
        let tokenizer = Words::new(false);
        let text = pieces(&tokenizer, &[0x80; 5000]).concat();
        assert!(tokenizer.longest.load(Ordering::Relaxed) <= LONGEST);
        assert_eq!(text, "\u{fffd}".repeat(5000));
    }

    proptest! {
        #[test]
        fn the_pieces_concatenate_to_the_decoded_text(
            ids in prop::collection::vec(prop_oneof![256u32..262, 0x7eu32..0x83, 0xc2u32..0xc4, 0xe2u32..0xe3, 0xf0u32..0xf1], 0..200),
            in_runs: bool,
        ) {
            let tokenizer = Words::new(in_runs);
            let whole = tokenizer.decode(&ids).unwrap();
            prop_assert_eq!(pieces(&tokenizer, &ids).concat(), whole);
        }
    }
}
