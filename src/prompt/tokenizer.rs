//! The tokenizer's contract: text to ids and back.

use std::sync::Arc;

use crate::types::Message;
use crate::{Error, Result};

/// Turns text into token ids and ids into text.
///
/// The contract, beyond the signatures:
///
/// - **Round trip.** For every text that [`encode`](Self::encode) accepts, `decode(encode(text)) == text`. A tokenizer that
///   normalises (lower case, Unicode forms) holds this for normalised text only and says so. The other direction does not
///   hold in general: different ids may spell the same text, which is why a rollout keeps the ids that were sampled.
/// - **Prompts do not inject.** `encode` of user text yields no stop token, even if the text spells one.
/// - **Ids are dense.** `encode` gives ids below [`vocab_size`](Self::vocab_size) only.
/// - **Every id decodes.** `decode` writes an id at or above `vocab_size` as U+FFFD, the replacement character. A policy may have
///   more columns than the tokenizer has tokens, and samples such an id sooner or later. It stays a possible token, because the
///   log-probs of training are normalised over all columns as well; only its text is no answer.
/// - **Pure.** Equal inputs give equal outputs, from any thread.
///
/// It is object safe: a trainer holds a `&dyn Tokenizer`.
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
///
/// let tokenizer: Box<dyn Tokenizer> = Box::new(CharTokenizer::new("0123456789+=", &[])?);
/// let ids = tokenizer.encode("37+48=")?;
/// assert_eq!(tokenizer.decode(&ids)?, "37+48=");
/// assert!(tokenizer.encode("37×48=").is_err());
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias = "processing_class")]
pub trait Tokenizer: Send + Sync {
    /// The ids of `text`, without any that the text does not spell (no beginning or end is added).
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`](crate::Error::UnknownCharacter) if the vocabulary cannot spell the text.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The ids of a prompt, which a tokenizer for conversations wraps into a turn of the user; by default those of its text.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        self.encode(prompt)
    }

    /// The ids of the beginning of a conversation in which the model speaks next. `tools` is the JSON list of the functions that it
    /// may call, as chat templates read it. Provided: the contents of the messages, one after the other, and no tools.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), or if the conversation cannot be written.
    fn encode_conversation(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        match tools {
            None => self.encode(&contents(messages)),
            Some(tools) => Err(Error::config(
                "tools",
                tools,
                "none: this tokenizer has no form for them",
            )),
        }
    }

    /// The ids that follow the model's reply when others speak before it does again: `observations` with everything that the
    /// form of the conversation puts around them, up to where the model speaks next. `conversation` is everything before, the reply
    /// last. The ids of the conversation itself stay as they are: the reply is not written again.
    ///
    /// The reply has ended with a stop token, whichever it was, and the ids stand right behind it. A reply that was cut off by a limit
    /// has none: nothing can follow it, and the episode ends.
    ///
    /// Provided: the contents of the observations, one after the other.
    ///
    /// # Errors
    /// If the conversation cannot be continued so that its ids stay, with the first text that would differ.
    fn encode_observations(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Vec<u32>> {
        let _ = (conversation, tools);
        self.encode(&contents(observations))
    }

    /// The text of `ids`; stop tokens are written as nothing.
    ///
    /// # Errors
    /// If the tokens cannot be joined to a text. An id outside the vocabulary is no error.
    fn decode(&self, ids: &[u32]) -> Result<String>;

    /// How many tokens there are, specials included: the model's logits have this many columns, or more.
    fn vocab_size(&self) -> usize;

    /// The id of exactly this token, specials included; `None` if there is no such token.
    fn token_id(&self, token: &str) -> Option<u32>;

    /// The tokens that end a completion, the canonical one first. Empty means that only a length limit ends one.
    fn stop_tokens(&self) -> Vec<u32>;
}

fn contents(messages: &[Message]) -> String {
    let contents = messages.iter().map(|message| message.content.as_str());
    contents.collect()
}

/// A shared tokenizer.
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

    /// Bytes as tokens: the smallest honest implementation, to hold the trait to being implementable outside.
    struct Bytes;

    impl Tokenizer for Bytes {
        fn encode(&self, text: &str) -> Result<Vec<u32>> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn decode(&self, ids: &[u32]) -> Result<String> {
            // 0xFF is in no UTF-8 text.
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
    fn it_is_object_safe_and_shared_between_threads() {
        let tokenizer: std::sync::Arc<dyn Tokenizer> = std::sync::Arc::new(Bytes);
        let there = tokenizer.clone();
        let ids = std::thread::spawn(move || there.encode("1+1=").unwrap())
            .join()
            .unwrap();
        assert_eq!(ids, [49, 43, 49, 61]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "1+1=");
        assert_eq!(tokenizer.decode(&[49, 256]).unwrap(), "1\u{fffd}");
    }
}
