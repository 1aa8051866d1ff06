//! A tokenizer for conversations: a prompt is a turn of the user.

use std::path::Path;

use super::conversation::History;
use super::rendering::Rendering;
use super::values::values;
use super::{ChatTemplate, HfTokenizer, Message, RenderOptions, Variables};
use crate::Result;
use crate::prompt::Tokenizer;

/// A tokenizer and a chat template as one [`Tokenizer`].
///
/// [`encode_prompt`](Tokenizer::encode_prompt) makes of a question the conversation that the model was trained to answer: the system
/// prompt, if there is one, the question as a turn of the user, and the beginning of the assistant's turn, to which a prefix
/// such as `<think>` may be added. Everything else is the [`HfTokenizer`]'s: completions are ordinary text.
///
/// Where a message spells a special token, it is read as ordinary text: a question cannot end its turn and speak as the
/// system. (What a template puts together from two messages is not seen.) Where none does, the ids are those of
/// `transformers`. The special tokens of the template itself, and of the prefix, are matched.
///
/// ```no_run
/// use rlvr::prompt::hf::{ChatTokenizer, Message};
///
/// let tokenizer = ChatTokenizer::from_folder("SmolLM2-135M-Instruct")?;
/// let turns = [Message::user("1+1="), Message::assistant("2"), Message::user("And 3 more?")];
/// let ids = tokenizer.encode_chat_prompt(&turns)?;
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
    /// A tokenizer for conversations, without system prompt, variables and prefix. For a template that writes the time
    /// (`strftime_now`) it is now from here on, so that no conversation changes while it lasts.
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

    /// The tokenizer and the chat template of the folder `path`.
    ///
    /// # Errors
    /// As [`HfTokenizer::from_folder`] and [`ChatTemplate::from_folder`].
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let tokenizer = HfTokenizer::from_folder(&path)?;
        Ok(Self::new(tokenizer, ChatTemplate::from_folder(path)?))
    }

    /// With this system prompt before every question. Without one the template decides; some write a default.
    #[must_use]
    pub fn with_system(mut self, system: impl Into<String>) -> Self {
        self.system = Some(system.into());
        self
    }

    /// With these variables for the template.
    #[must_use]
    pub fn with_variables(mut self, variables: Variables) -> Self {
        self.variables = variables;
        self
    }

    /// With `prefix` as the first words of every answer: part of the prompt, not of the completion.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// With this rule for a template that would write a conversation's history otherwise than it was sampled.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// The tokenizer of ordinary text.
    pub fn tokenizer(&self) -> &HfTokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The conversation that a question begins: the system prompt, if there is one, and the question.
    pub fn conversation(&self, question: impl Into<String>) -> Vec<Message> {
        let system = self.system.iter().map(Message::system);
        system.chain([Message::user(question)]).collect()
    }

    /// The text of a prompt, to be looked at: [`encode_prompt`](Tokenizer::encode_prompt) gives its ids.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_prompt(&self, question: &str) -> Result<String> {
        let options = RenderOptions {
            variables: self.variables.clone(),
            ..RenderOptions::generation()
        };
        let text = self
            .template
            .render(&self.conversation(question), &options)?;
        Ok(text + &self.prefix)
    }

    /// The ids of a whole conversation, as it is: no system prompt is added, and the last turn is over.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.ids(messages, &self.variables, false)
    }

    /// The ids of a conversation in which the assistant speaks next: with the beginning of its turn and the prefix.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.ids(messages, &self.variables, true)
    }

    /// The ids of the messages, with the prefix where the assistant speaks next.
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
        self.encode_chat_prompt(&self.conversation(prompt))
    }

    /// The ids of the messages as the template writes them with the tools, up to the beginning of the assistant's turn and the prefix.
    ///
    /// The tokenizer's system prompt stands before them unless they have one of their own (a message of the role `system` or
    /// `developer`), which wins. The tools are the template's variable `tools`, their fields in the order of the text; `None` and
    /// an empty list leave it as the tokenizer's variables have it, which is `none` by default.
    fn encode_conversation(&self, messages: &[Message], tools: Option<&str>) -> Result<Vec<u32>> {
        self.begin(messages, tools)
    }

    /// The ids that the template puts after the reply. [`History`] says what is compared, and what is refused.
    fn encode_observations(
        &self,
        conversation: &[Message],
        tools: Option<&str>,
        observations: &[Message],
    ) -> Result<Vec<u32>> {
        let observed = self.observe(conversation, tools, observations)?;
        if let Some(rewritten) = &observed.rewritten {
            tracing::debug!(%rewritten, "the history is kept as it was sampled");
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
