//! A tokenizer for conversations: a prompt is a turn of the user.

use std::path::Path;

use super::marks::Marks;
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
    tokenizer: HfTokenizer,
    template: ChatTemplate,
    system: Option<String>,
    variables: Variables,
    prefix: String,
}

impl ChatTokenizer {
    /// A tokenizer for conversations, without system prompt, variables and prefix.
    pub fn new(tokenizer: HfTokenizer, template: ChatTemplate) -> Self {
        Self {
            tokenizer,
            template,
            system: None,
            variables: Variables::new(),
            prefix: String::new(),
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
        let text = self
            .template
            .render(&self.conversation(question), &self.options(true))?;
        Ok(text + &self.prefix)
    }

    /// The ids of a whole conversation, as it is: no system prompt is added, and the last turn is over.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.ids(messages, &self.options(false), "")
    }

    /// The ids of a conversation in which the assistant speaks next: with the beginning of its turn and the prefix.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.ids(messages, &self.options(true), &self.prefix)
    }

    fn options(&self, add_generation_prompt: bool) -> RenderOptions {
        RenderOptions {
            add_generation_prompt,
            continue_final_message: false,
            variables: self.variables.clone(),
        }
    }

    fn ids(&self, messages: &[Message], options: &RenderOptions, prefix: &str) -> Result<Vec<u32>> {
        let of_variables = options.variables.strings();
        let of_messages = messages
            .iter()
            .flat_map(|message| [message.role.as_str(), message.content.as_str()]);
        let strings: Vec<&str> = of_messages
            .chain(of_variables.iter().map(String::as_str))
            .collect();
        let tokenizer = &self.tokenizer;
        let Some(marks) = Marks::of(&strings, tokenizer)? else {
            let text = self.template.render(messages, options)?;
            return tokenizer.encode_with_specials(&(text + prefix));
        };
        let marked: Vec<Message> = messages
            .iter()
            .map(|message| {
                let (role, content) = (&message.role, &message.content);
                Message::new(marks.mark(role, tokenizer), marks.mark(content, tokenizer))
            })
            .collect();
        let options = RenderOptions {
            variables: options.variables.map(|text| marks.mark(text, tokenizer)),
            ..options.clone()
        };
        let text = self.template.render(&marked, &options)?;
        tokenizer.encode_marked(&marks.read(&(text + prefix))?)
    }
}

impl Tokenizer for ChatTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        self.encode_chat_prompt(&self.conversation(prompt))
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
