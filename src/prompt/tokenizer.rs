//! The tokenizer trait.

use std::sync::Arc;

use crate::types::Message;
use crate::{Error, Result};

/// Converts text to token ids and back.
///
/// An implementation must satisfy this contract:
///
/// - **Round trip.** For every text that [`encode`](Self::encode) accepts,
///   `decode(encode(text)) == text`. A tokenizer that normalizes (lower case, Unicode forms) does
///   so for normalized text only, and documents it. The inverse does not hold in general: different
///   ids may have the same text, which is why a rollout keeps the sampled ids.
/// - **No injection.** `encode` never returns a stop token, even if the text spells one.
/// - **Dense ids.** `encode` returns only ids below [`vocab_size`](Self::vocab_size).
/// - **Total decoding.** `decode` writes an id at or above `vocab_size` as U+FFFD, the replacement
///   character. A policy may have more logits than the tokenizer has tokens, and may sample such an
///   id. The id remains a valid sample, because the log-probs in training are normalized over all
///   logits too.
/// - **Purity.** Equal inputs give equal outputs, from any thread.
///
/// The trait is object safe.
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
///
/// let tokenizer: Box<dyn Tokenizer> =
///     Box::new(CharTokenizer::new("0123456789+=", &[])?);
/// let ids = tokenizer.encode("37+48=")?;
/// assert_eq!(tokenizer.decode(&ids)?, "37+48=");
/// assert!(tokenizer.encode("37×48=").is_err());
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias = "processing_class")]
pub trait Tokenizer: Send + Sync {
    /// Returns the ids of `text`. No beginning-of-text or end-of-text token is added.
    ///
    /// # Errors
    /// Returns [`Error::UnknownCharacter`](crate::Error::UnknownCharacter) if a character is not in
    /// the vocabulary.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// Returns the ids of a prompt. A tokenizer for conversations formats it as a message of the
    /// user; the default is [`encode`](Self::encode).
    ///
    /// # Errors
    /// The same as [`encode`](Self::encode).
    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        self.encode(prompt)
    }

    /// Returns the ids of a conversation up to the start of the model's next reply.
    ///
    /// `tools` is the JSON list of the functions that the model may call, as chat templates expect
    /// it. The default concatenates the contents of the messages and does not support tools.
    ///
    /// # Errors
    /// The same as [`encode`](Self::encode). Also returns an error if the conversation cannot be
    /// formatted, or if `tools` are not supported.
    fn encode_conversation(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        match tools {
            None => self.encode(&contents(messages)),
            Some(tools) => Err(Error::config(
                "tools",
                tools,
                "none: this tokenizer does not support tools",
            )),
        }
    }

    /// Returns the ids to append after the model's reply: `observations` and the chat format around
    /// them, up to the start of the model's next reply.
    ///
    /// `conversation` is everything before the observations; the reply is its last message. Its ids
    /// are the sampled ones and do not change. The reply ended with a stop token, and the returned
    /// ids follow that token. (A reply that was cut off by a limit cannot be continued and ends the
    /// episode.)
    ///
    /// The default concatenates the contents of the observations.
    ///
    /// # Errors
    /// Returns an error if the conversation cannot be continued without changing its previous ids;
    /// the message has the first text that would differ.
    fn encode_observations(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Vec<u32>> {
        let _ = (conversation, tools);
        self.encode(&contents(observations))
    }

    /// Returns the text of `ids`, without stop tokens.
    ///
    /// # Errors
    /// Returns an error if the tokens cannot be joined to a text. An id outside the vocabulary is
    /// not an error.
    fn decode(&self, ids: &[u32]) -> Result<String>;

    /// Returns the number of tokens, including special ones. A model has at least as many logits.
    fn vocab_size(&self) -> usize;

    /// Returns the id of a token, which may be a special one, or `None` if there is no such token.
    fn token_id(&self, token: &str) -> Option<u32>;

    /// Returns the tokens that end a completion, the canonical one first. If there are none, only a
    /// length limit ends a completion.
    fn stop_tokens(&self) -> Vec<u32>;
}

fn contents(messages: &[Message]) -> String {
    let contents = messages.iter().map(|message| message.content.as_str());
    contents.collect()
}

impl<T: Tokenizer + ?Sized> Tokenizer for Arc<T> {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        (**self).encode(text)
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        (**self).encode_prompt(prompt)
    }

    fn encode_conversation(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        (**self).encode_conversation(messages, tools)
    }

    fn encode_observations(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Vec<u32>> {
        (**self).encode_observations(conversation, tools, observations)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        (**self).decode(ids)
    }

    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        (**self).token_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        (**self).stop_tokens()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal implementation with one token per byte.
    struct Bytes;

    impl Tokenizer for Bytes {
        fn encode(&self, text: &str) -> Result<Vec<u32>> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn decode(&self, ids: &[u32]) -> Result<String> {
            // 0xFF is not a valid byte of UTF-8.
            let byte = |&id: &u32| u8::try_from(id).unwrap_or(0xFF);
            let bytes: Vec<u8> = ids.iter().map(byte).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }

        fn vocab_size(&self) -> usize {
            256
        }

        fn token_id(&self, token: &str) -> Option<u32> {
            match token.as_bytes() {
                [byte] => Some(u32::from(*byte)),
                _ => None,
            }
        }

        fn stop_tokens(&self) -> Vec<u32> {
            Vec::new()
        }
    }

    #[test]
    fn tokenizers_are_object_safe_and_shared_between_threads() {
        let tokenizer: std::sync::Arc<dyn Tokenizer> = std::sync::Arc::new(Bytes);
        let shared = tokenizer.clone();
        let ids = std::thread::spawn(move || shared.encode("1+1=").unwrap())
            .join()
            .unwrap();
        assert_eq!(ids, [49, 43, 49, 61]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "1+1=");
        assert_eq!(tokenizer.decode(&[49, 256]).unwrap(), "1\u{fffd}");
    }
}
