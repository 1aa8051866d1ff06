//! Training examples: responses to prompts and conversations, and their tokens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::prompt::Tokenizer;
use crate::types::{Message, Problem, Rollout, RolloutGroup};
use crate::{Error, Result};

/// A prompt with its demonstrated response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// The prompt; in a file also `question`.
    #[serde(alias = "question")]
    pub prompt: String,
    /// The response, without the end-of-sequence token, which is appended.
    pub response: String,
}

impl Demonstration {
    /// Creates a demonstration.
    pub fn new(prompt: impl Into<String>, response: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            response: response.into(),
        }
    }
}

/// A conversation of several turns. The assistant's replies are trained on.
///
/// It begins with messages of other roles and ends with a reply of the assistant. It is tokenised
/// like a rollout of several turns: each reply is encoded literally, followed by the
/// end-of-sequence token, and the messages between replies by [`Tokenizer::encode_observations`].
/// Everything that the model should generate, such as reasoning in tags or tool calls, must
/// therefore be part of the reply's content, in the form in which it is sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// The JSON list of the functions that the model may call, as text, in the format of chat
    /// templates. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<String>,
}

impl Conversation {
    /// Creates a conversation without tools.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            tools: None,
        }
    }
}

/// A training example. As a line of a file it is `{"prompt": .., "response": ..}` or
/// `{"messages": [..]}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SftExample {
    /// A response to a prompt.
    Demonstration(Demonstration),
    /// A conversation.
    Conversation(Conversation),
}

impl From<Demonstration> for SftExample {
    fn from(demonstration: Demonstration) -> Self {
        Self::Demonstration(demonstration)
    }
}

impl From<Conversation> for SftExample {
    fn from(conversation: Conversation) -> Self {
        Self::Conversation(conversation)
    }
}

impl SftExample {
    /// Parses a line of JSON; unknown fields are ignored. `Err` is the reason of a failure.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(mut fields) = value else {
            return Err("expected a JSON object".into());
        };
        let wanted: &[&str] = match fields.contains_key("messages") {
            true => &["messages", "tools"],
            false => &["prompt", "question", "response"],
        };
        let own = wanted
            .iter()
            .filter_map(|&name| Some((name.to_string(), fields.remove(name)?)));
        let own = Value::Object(own.collect());
        let read = match wanted[0] {
            "messages" => serde_json::from_value(own).map(Self::Conversation),
            _ => serde_json::from_value(own).map(Self::Demonstration),
        };
        read.map_err(|error| format!("{error}; expected `prompt` and `response`, or `messages`"))
    }

    /// Encodes the example as a rollout: the prompt, and the tokens after it, of which the
    /// [trained](Rollout::is_trained) ones contribute to the loss.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode it, or if a conversation begins with a
    /// reply, does not end with one, has two replies in a row, or has a reply with fields other
    /// than its content.
    pub fn encode(&self, tokenizer: &dyn Tokenizer) -> Result<RolloutGroup> {
        match self {
            Self::Demonstration(demonstration) => {
                let Demonstration { prompt, response } = demonstration;
                let tokens = reply(response, tokenizer)?;
                let prompt_tokens = tokenizer.encode_prompt(prompt)?;
                Ok(group(prompt, prompt_tokens, tokens, Vec::new(), response))
            }
            Self::Conversation(conversation) => conversation.encode(tokenizer),
        }
    }
}

impl Conversation {
    fn encode(&self, tokenizer: &dyn Tokenizer) -> Result<RolloutGroup> {
        let Self { messages, tools } = self;
        let tools = tools.as_deref();
        let is_reply = |message: &Message| message.role == "assistant";
        let refused = |at: usize, found: &str, expected: &str| {
            Err(Error::config(format!("messages[{at}]"), found, expected))
        };
        let replies: Vec<usize> = (0..messages.len())
            .filter(|&at| is_reply(&messages[at]))
            .collect();
        let (Some(&first), Some(&last)) = (replies.first(), replies.last()) else {
            let expected = "at least one with the role `assistant`";
            return Err(Error::config("messages", messages.len(), expected));
        };
        if first == 0 {
            return refused(0, "the role `assistant`", "a message of another role first");
        }
        if last + 1 < messages.len() {
            let expected = "a reply of the assistant as the last message";
            let found = format!("the role `{}`", messages[messages.len() - 1].role);
            return refused(messages.len() - 1, &found, expected);
        }
        let prompt_tokens = tokenizer.encode_conversation(&messages[..first], tools)?;
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        let mut before = None;
        for at in replies {
            let message = &messages[at];
            if message.reasoning_content.is_some() || !message.tool_calls.is_empty() {
                let expected =
                    "a reply whose content is the complete output of the model, as it is sampled";
                return refused(
                    at,
                    "a reply with `reasoning_content` or `tool_calls`",
                    expected,
                );
            }
            if let Some(before) = before {
                let observations = &messages[before + 1..at];
                if observations.is_empty() {
                    let expected = "a message of another role between two replies";
                    return refused(at, "the role `assistant`", expected);
                }
                let conversation = &messages[..=before];
                let ids = tokenizer.encode_observations(conversation, tools, observations)?;
                mask.resize(mask.len() + ids.len(), false);
                tokens.extend(ids);
            }
            let ids = reply(&message.content, tokenizer)?;
            mask.resize(mask.len() + ids.len(), true);
            tokens.extend(ids);
            before = Some(at);
        }
        let prompt = &messages[first - 1].content;
        let response = &messages[last].content;
        Ok(group(prompt, prompt_tokens, tokens, mask, response))
    }
}

/// Returns the tokens of a reply with the end-of-sequence token.
fn reply(text: &str, tokenizer: &dyn Tokenizer) -> Result<Vec<u32>> {
    let mut tokens = tokenizer.encode(text)?;
    tokens.extend(tokenizer.stop_tokens().first());
    Ok(tokens)
}

fn group(
    prompt: &str,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    mask: Vec<bool>,
    text: &str,
) -> RolloutGroup {
    let log_probs = vec![0.0; tokens.len()];
    let rollout = Rollout {
        mask,
        ..Rollout::new(tokens, log_probs, text)
    };
    RolloutGroup::new(Problem::new(prompt, ""), prompt_tokens, vec![rollout])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::CharTokenizer;

    fn tokenizer() -> CharTokenizer {
        CharTokenizer::new("abcd", &[]).unwrap()
    }

    #[test]
    fn replies_of_a_conversation_and_their_end_tokens_are_trained() {
        let conversation = Conversation::new([
            Message::system("a"),
            Message::user("b"),
            Message::assistant("cd"),
            Message::user("ab"),
            Message::tool("t", "a"),
            Message::assistant("d"),
        ]);
        let group = SftExample::from(conversation).encode(&tokenizer()).unwrap();
        let text = |text: &str| tokenizer().encode(text).unwrap();
        let end = 1;
        assert_eq!(group.prompt_tokens, text("ab"));
        let rollout = &group.rollouts[0];
        let expected = [text("cd"), vec![end], text("aba"), text("d"), vec![end]].concat();
        assert_eq!(rollout.tokens, expected);
        let learned = [true, true, true, false, false, false, true, true];
        assert_eq!(rollout.mask, learned);
        assert_eq!(rollout.trained_tokens(), 5);
        // A conversation with one reply is equal to a demonstration.
        let short = Conversation::new([Message::user("ab"), Message::assistant("c")]);
        let short = SftExample::from(short).encode(&tokenizer()).unwrap();
        let same = SftExample::from(Demonstration::new("ab", "c"));
        let same = same.encode(&tokenizer()).unwrap();
        assert_eq!(short.prompt_tokens, same.prompt_tokens);
        assert_eq!(short.rollouts[0].tokens, same.rollouts[0].tokens);
        assert_eq!(short.trained_tokens(), same.trained_tokens());
    }

    #[test]
    fn invalid_conversations_are_rejected() {
        let (user, reply) = (|| Message::user("a"), || Message::assistant("b"));
        let thinking = Message {
            reasoning_content: Some("c".into()),
            ..reply()
        };
        for (messages, expected) in [
            (vec![user()], "at least one with the role `assistant`"),
            (vec![reply()], "messages[0]"),
            (vec![user(), reply(), user()], "messages[2]"),
            (vec![user(), reply(), reply()], "between two replies"),
            (vec![user(), thinking], "`reasoning_content`"),
        ] {
            let example = SftExample::from(Conversation::new(messages));
            let error = example.encode(&tokenizer()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn demonstrations_and_conversations_are_parsed() {
        let read = SftExample::parse(r#"{"id": 7, "response": "b", "prompt": "a"}"#).unwrap();
        assert_eq!(read, Demonstration::new("a", "b").into());
        let kept = SftExample::parse(r#"{"question": "a", "response": "b", "reward": 1.0}"#);
        assert_eq!(kept.unwrap(), read);
        let text = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "source": "x"}"#;
        let conversation = Conversation::new([Message::user("a"), Message::assistant("b")]);
        let read = SftExample::parse(text).unwrap();
        assert_eq!(read, conversation.into());
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(SftExample::parse(&written).unwrap(), read);
        for (text, reason) in [
            (r#"{"prompt": "a"}"#, "missing field `response`"),
            (
                r#"{"prompt": "a", "question": "b", "response": "c"}"#,
                "duplicate field",
            ),
            (r#"{"messages": "a"}"#, "invalid type"),
            (
                r#"{"text": "a"}"#,
                "expected `prompt` and `response`, or `messages`",
            ),
            ("[]", "a JSON object"),
            ("{", "EOF"),
        ] {
            let error = SftExample::parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
