//! A cache that stores each row separately, on the host.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, s};

use super::columns::{Columns, Layer};
use crate::fused::{AttentionMask, KvSegment, REDUCTION_LANES, segmented_attention, with_floats};

/// Keys and values of each row. A row is a list of segments, which it may share with other rows.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    rows: Vec<Vec<Part>>,
    /// The number and the size of the key heads of each layer.
    heads: Vec<[usize; 2]>,
    device: Device,
    /// The tokens of each row before the current pass.
    lengths: Vec<usize>,
    /// The tokens of each row in the current pass.
    new: Vec<usize>,
    /// The padded number of tokens in the current pass.
    width: usize,
}

/// A segment of a row.
#[derive(Clone, Debug)]
struct Part {
    segment: Arc<Segment>,
    /// The padding after it, modulo [`REDUCTION_LANES`].
    padding: usize,
}

impl Part {
    fn segment(&self, layer: usize) -> KvSegment<'_> {
        let [keys, values] = &self.segment.0[layer];
        KvSegment {
            keys,
            values,
            padding: self.padding,
        }
    }
}

/// Consecutive tokens: for each layer, keys and values `[tokens, heads, size]`.
#[derive(Clone, Debug)]
struct Segment(Vec<[Vec<f32>; 2]>);

impl Rows {
    /// Returns the given rows of `columns`; `None` if no token has been read yet, or there are no
    /// kernels for its tensors.
    pub fn of(columns: &Columns, rows: &[usize]) -> Option<Self> {
        let mut device = None;
        let mut heads = Vec::with_capacity(columns.layers.len());
        let mut runs: Vec<Option<Vec<Run>>> = vec![None; columns.valid.len()];
        for &row in rows {
            runs[row].get_or_insert_with(|| Run::all(&columns.valid[row]));
        }
        for layer in &columns.layers {
            let Layer { keys, values } = layer.as_ref()?;
            device.get_or_insert_with(|| keys.device());
            let by_position = |tensor: &Tensor<4>| {
                let used = tensor.clone().slice(s![.., .., ..columns.columns, ..]);
                used.swap_dims(1, 2)
            };
            let [_, count, _, size] = keys.dims();
            heads.push([count, size]);
            with_floats(
                [&by_position(keys), &by_position(values)],
                |[keys, values]| {
                    for (row, runs) in runs.iter_mut().enumerate() {
                        for run in runs.iter_mut().flatten() {
                            let first = row * columns.columns * count * size;
                            let Range { start, end } = run.columns;
                            let range = first + start * count * size..first + end * count * size;
                            let copies =
                                [&keys[range.clone()], &values[range]].map(<[f32]>::to_vec);
                            run.segment.0.push(copies);
                        }
                    }
                },
            )?;
        }
        let parts: Vec<Option<Vec<Part>>> = runs
            .into_iter()
            .map(|runs| Some(runs?.into_iter().map(Part::from).collect()))
            .collect();
        let tokens = |&row: &usize| columns.valid[row].iter().filter(|&&token| token).count();
        Some(Self {
            lengths: rows.iter().map(tokens).collect(),
            new: vec![0; rows.len()],
            width: 0,
            rows: rows
                .iter()
                .map(|&row| parts[row].clone())
                .collect::<Option<_>>()?,
            heads,
            device: device?,
        })
    }

    /// Makes room for `new[b]` tokens of each row `b`, padded to `width`.
    pub fn begin(&mut self, new: &[usize], width: usize) -> AttentionMask {
        self.end_pass();
        for (row, &new) in self.rows.iter_mut().zip(new) {
            let open =
                |part: &mut Part| part.padding == 0 && Arc::get_mut(&mut part.segment).is_some();
            if row.is_empty() || (new > 0 && !row.last_mut().is_some_and(open)) {
                row.push(Part {
                    segment: Arc::new(Segment(vec![Default::default(); self.heads.len()])),
                    padding: 0,
                });
            }
            if let Some(last) = row.last_mut() {
                last.padding = (last.padding + width - new) % REDUCTION_LANES;
            }
        }
        self.new = new.to_vec();
        self.width = width;
        AttentionMask::new(self.valid(), width)
    }

    /// Ends the current pass: its tokens become old ones.
    fn end_pass(&mut self) {
        for (length, new) in self.lengths.iter_mut().zip(&mut self.new) {
            *length += std::mem::take(new);
        }
        self.width = 0;
    }

    /// The number of tokens of the longest row before the current pass.
    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// `[B, S]`: whether a column holds a token, with old tokens padded to the longest row and new
    /// ones after them.
    fn valid(&self) -> Vec<Vec<bool>> {
        let longest = self.longest();
        let row = |(&length, &new): (&usize, &usize)| {
            let old = (0..longest).map(|column| column < length);
            old.chain((0..self.width).map(|column| column < new))
                .collect()
        };
        self.lengths.iter().zip(&self.new).map(row).collect()
    }

    /// Returns the same cache as one tensor per layer.
    pub fn to_columns(&self) -> Columns {
        let longest = self.longest();
        let columns = longest + self.width;
        let layer = |(layer, &[count, size]): (usize, &[usize; 2])| {
            let token = count * size;
            let lay = |which: usize| {
                let mut numbers = vec![0f32; self.rows.len() * columns * token];
                for (row, parts) in self.rows.iter().enumerate() {
                    let held = parts.iter().map(|part| &part.segment.0[layer][which]);
                    for (at, new) in held.flat_map(|held| held.chunks_exact(token)).enumerate() {
                        let column = match at.checked_sub(self.lengths[row]) {
                            None => at,
                            Some(new) => longest + new,
                        };
                        numbers[(row * columns + column) * token..][..token].copy_from_slice(new);
                    }
                }
                let data = TensorData::new(numbers, [self.rows.len(), columns, count, size]);
                Tensor::<4>::from_data(data, &self.device).swap_dims(1, 2)
            };
            Some(Layer {
                keys: lay(0),
                values: lay(1),
            })
        };
        let layers = self.heads.iter().enumerate().map(layer).collect();
        Columns::of(layers, self.valid(), columns, self.width)
    }

    /// Appends new keys and values of `layer` and returns the attention over all of them; returns
    /// `None` and appends nothing if there are no kernels for a tensor.
    pub fn attend(
        &mut self,
        layer: usize,
        queries: &Tensor<4>,
        keys: &Tensor<4>,
        values: &Tensor<4>,
        window: Option<usize>,
    ) -> Option<Tensor<4>> {
        let [count, size] = self.heads[layer];
        with_floats([queries, keys, values], |[_, keys, values]| {
            let padded = self.width * count * size;
            for (index, (row, &new)) in self.rows.iter_mut().zip(&self.new).enumerate() {
                let (Some(part), true) = (row.last_mut(), new > 0) else {
                    continue;
                };
                let added = index * padded..index * padded + new * count * size;
                let segment = Arc::make_mut(&mut part.segment);
                for (held, new) in segment.0[layer].iter_mut().zip([keys, values]) {
                    held.extend_from_slice(&new[added.clone()]);
                }
            }
        })?;
        let rows: Vec<Vec<KvSegment<'_>>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|part| part.segment(layer)).collect())
            .collect();
        segmented_attention(queries, count, &rows, &self.new, window)
    }

    pub fn select(&mut self, rows: &[usize]) {
        self.end_pass();
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
        self.new = vec![0; rows.len()];
    }

    /// Appends the rows of `other`.
    pub fn extend(&mut self, mut other: Self) {
        self.end_pass();
        other.end_pass();
        self.rows.extend(other.rows);
        self.lengths.extend(other.lengths);
        self.new.extend(other.new);
    }
}

/// Consecutive columns of a row that hold tokens, to become a part.
#[derive(Clone)]
struct Run {
    columns: Range<usize>,
    padding: usize,
    segment: Segment,
}

impl Run {
    /// Returns all runs of a row.
    fn all(valid: &[bool]) -> Vec<Self> {
        let (mut runs, mut start) = (Vec::new(), 0);
        while start < valid.len() {
            let count = |from: usize, token: bool| {
                let same = valid[from..].iter().take_while(|&&valid| valid == token);
                same.count()
            };
            let end = start + count(start, true);
            let padding = count(end, false);
            runs.push(Self {
                columns: start..end,
                padding,
                segment: Segment(Vec::new()),
            });
            start = end + padding;
        }
        runs
    }
}

impl From<Run> for Part {
    fn from(run: Run) -> Self {
        Self {
            segment: Arc::new(run.segment),
            padding: run.padding % REDUCTION_LANES,
        }
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use super::super::{Held, KvCache};
    use super::*;
    use crate::policy::{PolicyCache, TokenBatch};

    /// Runs one pass of a layer with one head of size 4.
    fn pass(cache: &mut KvCache, lengths: Vec<usize>, device: &Device) {
        let (rows, width) = (lengths.len(), lengths.iter().copied().max().unwrap());
        let ids = Tensor::zeros([rows, width], device);
        let (_, mask) = cache.begin(&TokenBatch { ids, lengths }, 1000).unwrap();
        let x = Tensor::<4>::ones([rows, width, 1, 4], device);
        cache.attend(0, x.clone(), x.clone(), x, &mask);
    }

    /// The address and length of the keys of each segment of each row.
    fn keys(cache: &KvCache) -> Vec<Vec<(*const f32, usize)>> {
        let Held::Rows(held) = &cache.held else {
            panic!("rows are not stored separately");
        };
        let place = |part: &Part| (part.segment.0[0][0].as_ptr(), part.segment.0[0][0].len());
        let row = |row: &Vec<Part>| row.iter().map(place).collect();
        held.rows.iter().map(row).collect()
    }

    #[test]
    fn prompts_are_shared_and_adding_or_removing_rows_copies_no_other_row() {
        let device = Device::flex();
        let mut prompts = KvCache::new(1, 2);
        pass(&mut prompts, vec![9, 3], &device);
        let mut cache = KvCache::new(1, 0);
        cache.append_rows(&prompts, &[0, 0, 1, 0]);
        drop(prompts);
        for _ in 0..3 {
            pass(&mut cache, vec![1; 4], &device);
        }
        let held = keys(&cache);
        let prompt = held[0][0];
        assert_eq!((prompt.1, held[2][0].1), (9 * 4, 3 * 4));
        assert_eq!([held[1][0], held[3][0]], [prompt; 2]);
        assert!(held.iter().all(|row| row.len() == 2 && row[1].1 == 3 * 4));
        // Remove rows and append others; the remaining ones keep their addresses.
        cache.select_rows(&[3, 2]);
        let mut more = KvCache::new(1, 1);
        pass(&mut more, vec![20], &device);
        cache.append_rows(&more, &[0, 0]);
        assert_eq!(keys(&cache)[..2], [held[3].clone(), held[2].clone()]);
        // A running row grows in its own segment, after the shared prompt.
        pass(&mut cache, vec![1; 4], &device);
        let now = keys(&cache);
        assert_eq!((now[0].len(), now[0][0], now[0][1].1), (2, prompt, 4 * 4));
        assert_eq!(cache.lengths(), [13, 7, 21, 21]);
    }
}
