//! Compares segmented attention with attention on the padded batch that the segments were cut from;
//! for single queries, bit for bit.

use rlvr_kernels::{
    AttentionShape, Heads, KvSegment, Mask, SegmentedShape, attention, segmented_attention,
};

/// Pseudorandom numbers between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A padded batch that was read in several passes. `passes` has the padded width and the number of
/// tokens of each row.
struct Read<'a> {
    passes: &'a [(usize, &'a [usize])],
    query_heads: usize,
    key_heads: usize,
    size: usize,
    window: Option<usize>,
}

impl Read<'_> {
    /// Compares the queries of the last pass, with the padding of the batch and with it modulo 16.
    fn check(&self) {
        let (rows, size, heads) = (self.passes[0].1.len(), self.size, self.key_heads);
        let columns: usize = self.passes.iter().map(|pass| pass.0).sum();
        let (width, new) = self.passes[self.passes.len() - 1];
        let count = rows * columns * heads * size;
        let (keys, values) = (numbers(count, 1), numbers(count, 2));
        let queries = numbers(rows * width * self.query_heads * size, 3);
        let mut tokens = vec![Vec::new(); rows];
        let mut segments: Vec<Vec<KvSegment<'_>>> = vec![Vec::new(); rows];
        let mut column = 0;
        for &(width, lengths) in self.passes {
            for (row, &length) in lengths.iter().enumerate() {
                tokens[row].extend((0..width).map(|at| at < length));
                let from = (row * columns + column) * heads * size;
                let range = from..from + length * heads * size;
                segments[row].push(KvSegment {
                    keys: &keys[range.clone()],
                    values: &values[range],
                    padding: width - length,
                });
            }
            column += width;
        }
        let at = |data, positions, heads| Heads {
            data,
            strides: [positions * heads * size, size, heads * size],
        };
        let shape = AttentionShape {
            rows,
            query_heads: self.query_heads,
            key_heads: heads,
            queries: width,
            keys: columns,
            size,
        };
        let mask = Mask {
            tokens: Some(&tokens),
            window: self.window,
        };
        let (expected, _) = attention(
            shape,
            at(&queries, width, self.query_heads),
            at(&keys, columns, heads),
            at(&values, columns, heads),
            mask,
            0.3,
        );
        let shape = SegmentedShape {
            query_heads: self.query_heads,
            key_heads: heads,
            queries: width,
            size,
        };
        for short in [false, true] {
            if short {
                for segment in segments.iter_mut().flatten() {
                    segment.padding %= 16;
                }
            }
            let got = segmented_attention(shape, &queries, &segments, new, self.window, 0.3);
            let row_size = self.query_heads * size;
            for (row, &new) in new.iter().enumerate() {
                for query in 0..width {
                    let at = (row * width + query) * row_size;
                    let (got, expected) = (&got[at..at + row_size], &expected[at..at + row_size]);
                    match query < new {
                        // `attention` computes several queries by a matrix product.
                        true if width == 1 => assert_eq!(got, expected, "row {row}"),
                        true => {
                            for (got, expected) in got.iter().zip(expected) {
                                assert!((got - expected).abs() < 1e-5, "{got} {expected}");
                            }
                        }
                        false => assert!(got.iter().all(|&x| x == 0.0)),
                    }
                }
            }
        }
    }
}

#[test]
fn segments_give_the_attention_of_the_padded_batch() {
    let one = [1; 3];
    let many: Vec<(usize, &[usize])> = (0..40).map(|_| (1, &one[..])).collect();
    let mut long: Vec<(usize, &[usize])> = vec![(37, &[37, 1, 20])];
    long.extend(many);
    for window in [None, Some(1), Some(2), Some(5), Some(23), Some(1000)] {
        for passes in [
            &[(1, &[1, 1, 1][..])][..],
            &[(5, &[5, 2, 3]), (1, &[1, 1, 1])],
            &[(5, &[5, 2, 3]), (3, &[3, 0, 1]), (1, &[1, 1, 1])],
            &[(21, &[21, 2, 3]), (4, &[4, 2, 0])],
            &[(4, &[4, 2, 1])],
            &long,
        ] {
            for (query_heads, key_heads, size) in [(1, 1, 3), (6, 2, 16), (3, 3, 20)] {
                let read = Read {
                    passes,
                    query_heads,
                    key_heads,
                    size,
                    window,
                };
                read.check();
            }
        }
    }
}

#[test]
fn a_batch_on_several_threads_matches_its_rows_alone() {
    let (heads, size, rows) = (4, 32, 9);
    let shape = SegmentedShape {
        query_heads: 8,
        key_heads: heads,
        queries: 1,
        size,
    };
    let shared = [
        numbers(300 * heads * size, 4),
        numbers(300 * heads * size, 5),
    ];
    let own = numbers(rows * 50 * heads * size, 6);
    let queries = numbers(rows * 8 * size, 7);
    let segments: Vec<Vec<KvSegment<'_>>> = (0..rows)
        .map(|row| {
            let own = &own[row * 50 * heads * size..][..(1 + 5 * row) * heads * size];
            vec![
                KvSegment {
                    keys: &shared[0],
                    values: &shared[1],
                    padding: row,
                },
                KvSegment {
                    keys: own,
                    values: own,
                    padding: 0,
                },
            ]
        })
        .collect();
    let together = segmented_attention(shape, &queries, &segments, &[1; 9], None, 0.2);
    let alone: Vec<f32> = segments
        .chunks(1)
        .zip(queries.chunks(8 * size))
        .flat_map(|(row, queries)| segmented_attention(shape, queries, row, &[1], None, 0.2))
        .collect();
    assert_eq!(together, alone);
}
