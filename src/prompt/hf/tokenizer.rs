//! The tokenizer of a Hugging Face folder.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use tokenizers::{
    AddedToken, AddedVocabulary, Decoder, Model, NormalizedString, OffsetReferential, OffsetType,
    PreTokenizer, Token, normalizer,
};

use super::folder::{self, Folder, NAMED_TOKENS};
use super::marks::Marked;
use crate::prompt::Tokenizer;
use crate::{Error, Result};

/// How many characters an error shows on each side of the one it names.
const SHOWN: usize = 20;

/// The tokenizer of a Hugging Face folder, by the `tokenizers` crate.
///
/// Read from `tokenizer.json`; padding and stop tokens are named by the configs beside it. What a folder says about truncation
/// and padding is ignored: a rollout decides how long it is.
///
/// - [`encode`](Tokenizer::encode) reads all text as ordinary text: what spells a special token, such as `<|im_end|>`, becomes the
///   tokens of its characters. Added tokens that are not special, such as `<think>` in many models, are matched. No beginning
///   or end is added. [`encode_with_specials`](Self::encode_with_specials) matches special tokens too.
/// - [`decode`](Tokenizer::decode) writes padding and stop tokens as nothing and every other token, special or not, as it is spelled.
///   An id that has no token (the embedding may have more rows than the vocabulary has tokens) is written as nothing.
/// - A SentencePiece tokenizer does not tell a text from the same text after a space: `encode` puts a space before the first
///   word and `decode` takes it away, so the round trip holds for text that begins with something else. Normalising ones
///   (Unicode forms, lower case) return the normalised text.
///
/// ```no_run
/// use rlvr::prompt::Tokenizer;
/// use rlvr::prompt::hf::HfTokenizer;
///
/// let tokenizer = HfTokenizer::from_folder("SmolLM2-135M-Instruct")?;
/// let ids = tokenizer.encode("37 + 48 = 85")?;
/// assert_eq!(tokenizer.decode(&ids)?, "37 + 48 = 85");
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone)]
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens with their special ones left unmatched.
    ordinary: AddedVocabulary,
    /// The ids of all special tokens.
    special_ids: HashSet<u32>,
    vocab_size: usize,
    stop: Vec<u32>,
    pad: u32,
}

impl HfTokenizer {
    /// The tokenizer of the folder `path`: `tokenizer.json`, and what is there of `tokenizer_config.json`,
    /// `generation_config.json` and `config.json`.
    ///
    /// Stop tokens are the `eos_token_id` of the generation config, else of the config, else the tokenizer config's
    /// `eos_token`; where that is one of several it comes first, being what ends a turn. Padding is the tokenizer config's
    /// `pad_token`, else a `pad_token_id`, else the first stop token.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Data`] if one is not what it should be, [`Error::Config`] if no stop token
    /// is named or a field has a value it cannot have.
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self> {
        let folder = Folder::read(path.as_ref())?;
        let mut inner = read_tokenizer(&folder.path)?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        let vocab_size = folder.vocab_size()?.unwrap_or(0).max(largest as usize + 1);

        let stop = stop_tokens(&folder, &inner)?;
        let named_pad = folder.named_token("pad_token");
        let pad = match named_pad.and_then(|token| inner.token_to_id(token)) {
            Some(id) => id,
            None => folder.pad_token_id()?.unwrap_or(stop[0]),
        };
        for &id in stop.iter().chain([&pad]) {
            if id as usize >= vocab_size {
                let expected = format!("ids below {vocab_size}, the size of the vocabulary");
                return Err(Error::config(
                    format!("{}: stop or padding token", folder.path.display()),
                    id,
                    expected,
                ));
            }
        }

        let named = NAMED_TOKENS
            .iter()
            .filter_map(|name| inner.token_to_id(folder.named_token(name)?));
        let special: Vec<u32> = named.chain(stop.iter().copied()).chain([pad]).collect();
        make_special(&mut inner, &special).map_err(|reason| Error::Data {
            path: folder.path.join("tokenizer.json"),
            line: 1,
            reason: reason.to_string(),
        })?;

        let added = inner.get_added_vocabulary();
        let mut ordinary = added.clone();
        ordinary.set_encode_special_tokens(true);
        let specials = added.get_added_tokens_decoder().iter();
        let specials = specials.filter(|(_, token)| token.special);
        Ok(Self {
            special_ids: specials.map(|(&id, _)| id).collect(),
            ordinary,
            vocab_size,
            stop,
            pad,
            inner,
        })
    }

    /// The ids of `text`, special tokens in it matched: for text that a template rendered, never for a user's.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(self.inner.get_added_vocabulary(), text, &Marked::default())
    }

    /// As [`encode_with_specials`](Self::encode_with_specials), but what stands for special tokens becomes their ordinary tokens.
    pub(super) fn encode_marked(&self, marked: &Marked) -> Result<Vec<u32>> {
        self.ids(self.inner.get_added_vocabulary(), &marked.text, marked)
    }

    /// The texts of the stop tokens, the canonical one first.
    pub(super) fn stop_texts(&self) -> Vec<String> {
        let stop = self.stop.iter();
        stop.filter_map(|&id| self.inner.id_to_token(id)).collect()
    }

    /// Where `text` spells special tokens, in bytes.
    pub(super) fn specials_in(&self, text: &str) -> Vec<Range<usize>> {
        let added = self.inner.get_added_vocabulary();
        let pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let special = |tokens: &Option<Vec<Token>>| {
            let mut tokens = tokens.iter().flatten();
            tokens.any(|token| self.special_ids.contains(&token.id))
        };
        pieces
            .into_iter()
            .filter(|(_, _, tokens)| special(tokens))
            .map(|(_, (start, end), _)| start..end)
            .collect()
    }

    /// The pipeline of `tokenizers` without its last step, which would add, cut and pad: added tokens, normaliser,
    /// pre-tokenizer, model. Between the first two and the rest the marks give way to what they stand for: too late to be
    /// matched as an added token, in time for everything else.
    fn ids(&self, added: &AddedVocabulary, text: &str, marked: &Marked) -> Result<Vec<u32>> {
        let run = || -> tokenizers::Result<Vec<u32>> {
            let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
            if marked.any() {
                pieces.normalize(|piece| {
                    piece.filter(|character| !marked.breaks.contains(&character));
                    for (stand_in, special) in &marked.stand_ins {
                        piece.replace(*stand_in, special)?;
                    }
                    Ok(())
                })?;
            }
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| Ok(self.tokens(piece, text)?))?;
            let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
            Ok(encoding.get_ids().to_vec())
        };
        run().map_err(|error| match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::config("text", format!("{:?}", shown(text, 0)), error.to_string()),
        })
    }

    /// The model's tokens of an ordinary piece of the text. None of them is special: a model whose vocabulary holds its special
    /// tokens (Unigram ones do) would give one to a text that spells it, so such a text is cut in two and tried again.
    fn tokens(&self, piece: &NormalizedString, text: &str) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut pending = vec![(0, piece.len())];
        while let Some((start, end)) = pending.pop() {
            let part = &piece.get()[start..end];
            let found =
                self.inner.get_model().tokenize(part).map_err(|error| {
                    Error::config("text", format!("{part:?}"), error.to_string())
                })?;
            let special = found
                .iter()
                .find(|token| self.special_ids.contains(&token.id));
            let Some(special) = special else {
                tokens.extend(found);
                continue;
            };
            let (from, to) = (start + special.offsets.0, start + special.offsets.1);
            let spelled = piece.get().get(from..to).unwrap_or_default();
            let first = spelled.chars().next().unwrap_or('\u{fffd}');
            let cut = from + first.len_utf8();
            if self.inner.token_to_id(spelled) != Some(special.id) || cut >= to {
                // The token for what the vocabulary cannot spell.
                let within = piece.convert_offsets(normalizer::Range::Normalized(from..to));
                let position = piece.offsets_original().0 + within.map_or(0, |range| range.start);
                return Err(Error::UnknownCharacter {
                    character: first,
                    position,
                    text: shown(text, position),
                    vocabulary: self.vocab_size,
                });
            }
            pending.extend([(cut, end), (start, cut)]);
        }
        Ok(tokens)
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(&self.ordinary, text, &Marked::default())
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            if id as usize >= self.vocab_size {
                tokens.push(char::REPLACEMENT_CHARACTER.to_string());
            } else if id != self.pad && !self.stop.contains(&id) {
                tokens.extend(self.inner.id_to_token(id));
            }
        }
        match self.inner.get_decoder() {
            // Some decoders panic at an empty list.
            _ if tokens.is_empty() => Ok(String::new()),
            None => Ok(tokens.join(" ")),
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|error| Error::config("ids", format!("{ids:?}"), error.to_string())),
        }
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        self.stop.clone()
    }
}

impl fmt::Debug for HfTokenizer {
    /// Without the vocabulary, which is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HfTokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("stop", &self.stop)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

fn read_tokenizer(folder: &Path) -> Result<tokenizers::Tokenizer> {
    let path = folder.join("tokenizer.json");
    let text = folder::required(
        &path,
        "not there; expected a Hugging Face folder with the tokenizer in this file (transformers writes it with \
         `save_pretrained` of a fast tokenizer)",
    )?;
    // Before the tokenizer's own reading, which does not survive every broken file.
    folder::check_json(&path, &text)?;
    let refused = |reason: tokenizers::Error| match reason.downcast_ref::<serde_json::Error>() {
        Some(error) => folder::broken(&path, error),
        None => Error::Data {
            path: path.clone(),
            line: 1,
            reason: reason.to_string(),
        },
    };
    tokenizers::Tokenizer::from_bytes(&text).map_err(refused)
}

/// The stop tokens, the one that ends a turn first.
fn stop_tokens(folder: &Folder, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
    let named = folder.named_token("eos_token");
    let canonical = named.and_then(|token| tokenizer.token_to_id(token));
    let mut stop: Vec<u32> = Vec::new();
    for id in folder.eos_token_ids()? {
        if !stop.contains(&id) {
            stop.push(id);
        }
    }
    match canonical {
        Some(id) if stop.is_empty() => stop.push(id),
        Some(id) => stop.sort_by_key(|&other| other != id),
        None => {}
    }
    if !stop.is_empty() {
        return Ok(stop);
    }
    let found = match named {
        Some(token) => format!("the tokenizer config's {token:?}, which is not in the vocabulary"),
        None => "none".to_owned(),
    };
    Err(Error::config(
        format!("{}: stop token", folder.path.display()),
        found,
        "an `eos_token_id` in generation_config.json or config.json, or an `eos_token` of the vocabulary in \
         tokenizer_config.json",
    ))
}

/// Makes the tokens of these ids special, as their names say they are, whatever `tokenizer.json` says.
fn make_special(tokenizer: &mut tokenizers::Tokenizer, ids: &[u32]) -> tokenizers::Result<()> {
    let added = tokenizer.get_added_tokens_decoder();
    let mut specials = Vec::new();
    for id in ids {
        match added.get(id) {
            Some(token) if token.special => {}
            Some(token) => specials.push(AddedToken {
                special: true,
                ..token.clone()
            }),
            None => specials.extend(
                tokenizer
                    .id_to_token(*id)
                    .map(|token| AddedToken::from(token, true)),
            ),
        }
    }
    tokenizer.add_special_tokens(specials)?;
    Ok(())
}

/// The part of `text` around a byte.
fn shown(text: &str, position: usize) -> String {
    let position = (0..=position.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    let before: Vec<char> = text[..position].chars().rev().take(SHOWN).collect();
    let after = text[position..].chars().take(SHOWN + 1);
    before.into_iter().rev().chain(after).collect()
}
