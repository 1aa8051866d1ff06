//! A tokenizer that formats prompts and conversations with a chat template.

use std::path::Path;

use super::conversation::History;
use super::rendering::Rendering;
use super::values::values;
use super::{ChatTemplate, HfTokenizer, RenderOptions, Variables};
use crate::Result;
use crate::prompt::Tokenizer;
use crate::types::Message;

/// A tokenizer and a chat template combined into one [`Tokenizer`].
///
/// [`encode_prompt`](Tokenizer::encode_prompt) formats a prompt as a conversation: the system
/// prompt, if there is one, the prompt as a message of the user, and the start of the assistant's
/// message, to which a prefix such as `<think>` can be added. Completions are ordinary text, as
/// with [`HfTokenizer`].
///
/// A special token in the text of a message is encoded as ordinary text, so a user cannot end the
/// message and start one of the system. (A special token that the template assembles from two
/// messages is not detected.) Otherwise the ids are those of `transformers`. Special tokens of the
/// template itself and of the prefix are matched.
///
/// ```no_run
/// use rlvr::prompt::hf::ChatTokenizer;
/// use rlvr::prompt::{Message, Tokenizer};
///
/// let tokenizer = ChatTokenizer::from_folder("SmolLM2-135M-Instruct")?;
/// let turns = [
///     Message::user("1+1="),
///     Message::assistant("2"),
///     Message::user("And 3 more?"),
/// ];
/// let ids = tokenizer.encode_conversation(&turns, None)?;
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTokenizer {
    pub(super) tokenizer: HfTokenizer,
    pub(super) template: ChatTemplate,
    pub(super) system: Option<String>,
    pub(super) variables: Variables,
    pub(super) prefix: String,
    pub(super) history: History,
}

impl ChatTokenizer {
    /// Creates a tokenizer without system prompt, variables and prefix.
    ///
    /// If the template writes the time (`strftime_now`), it is the time of this call, so that a
    /// conversation does not change while it continues.
    pub fn new(tokenizer: HfTokenizer, template: ChatTemplate) -> Self {
        Self {
            tokenizer,
            template: template.with_frozen_clock(),
            system: None,
            variables: Variables::new(),
            prefix: String::new(),
            history: History::Strict,
        }
    }

    /// Reads the tokenizer and the chat template of the folder `path`.
    ///
    /// # Errors
    /// The same as [`HfTokenizer::from_folder`] and [`ChatTemplate::from_folder`].
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let tokenizer = HfTokenizer::from_folder(&path)?;
        Ok(Self::new(tokenizer, ChatTemplate::from_folder(path)?))
    }

    /// Sets the system prompt. Without one, some templates write a default.
    #[must_use]
    pub fn with_system(mut self, system: impl Into<String>) -> Self {
        self.system = Some(system.into());
        self
    }

    /// Sets the variables of the template.
    #[must_use]
    pub fn with_variables(mut self, variables: Variables) -> Self {
        self.variables = variables;
        self
    }

    /// Sets the text that every reply starts with. It is part of the prompt, not of the completion.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the rule for a template that changes the history of a conversation.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// Returns the tokenizer of ordinary text.
    pub fn tokenizer(&self) -> &HfTokenizer {
        &self.tokenizer
    }

    /// Returns the chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Returns the formatted text of a prompt, for inspection.
    /// [`encode_prompt`](Tokenizer::encode_prompt) returns its ids.
    ///
    /// # Errors
    /// The same as [`ChatTemplate::render`].
    pub fn render_prompt(&self, question: &str) -> Result<String> {
        let options = RenderOptions {
            variables: self.variables.clone(),
            ..RenderOptions::generation()
        };
        let messages = self.with_own_system(vec![Message::user(question)]);
        Ok(self.template.render(&messages, &options)? + &self.prefix)
    }

    /// Returns the ids of a complete conversation, without the start of another reply. The system
    /// prompt is not added.
    ///
    /// # Errors
    /// The same as [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.ids(messages, &self.variables, false)
    }

    /// The ids of the messages, followed by the prefix if the assistant's message starts.
    pub(super) fn ids(
        &self,
        messages: &[Message],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        let values = values(messages)?;
        let rendering = Rendering::new(&self.template, &self.tokenizer, variables, &values)?;
        let mut text = rendering.render(&rendering.marked(values), add_generation_prompt)?;
        if add_generation_prompt {
            text.push_str(&self.prefix);
        }
        rendering.encode(&text)
    }
}

impl Tokenizer for ChatTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        self.begin(&[Message::user(prompt)], None)
    }

    /// Renders the messages and the tools with the template, followed by the start of the
    /// assistant's message and the prefix.
    ///
    /// The tokenizer's system prompt is inserted unless there is a message of the role `system` or
    /// `developer`. The tools are the template's variable `tools`, with their fields in the order
    /// of the text. `None` and an empty list leave the variable unchanged; its default is `none`.
    fn encode_conversation(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        self.begin(messages, tools)
    }

    /// Returns the ids that the template writes after the reply. [`History`] describes how they are
    /// determined and when this is an error.
    fn encode_observations(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Vec<u32>> {
        let observed = self.observe(conversation, tools, observations)?;
        if let Some(rewritten) = &observed.rewritten {
            tracing::debug!(%rewritten, "the template changes the history; the sampled ids are kept");
        }
        Ok(observed.ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids)
    }

    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        self.tokenizer.stop_tokens()
    }
}
