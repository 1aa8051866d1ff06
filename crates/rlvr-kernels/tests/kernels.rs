//! Compares every kernel with its definition in f64, and every gradient with finite differences of
//! that definition.

use rlvr_kernels::{
    AdamW, AttentionShape, Heads, Mask, Matrix, PackedFormat, PackedMatrix, RotaryTable, attention,
    attention_backward, linear, rms_norm, rms_norm_backward, rms_norm_gain_gradient, rotate,
    sum_of_rows, sum_of_squares, swiglu, swiglu_backward, token_scores, token_scores_backward,
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

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn close(what: &str, got: &[f32], exact: &[f64], tolerance: f64) {
    assert_eq!(got.len(), exact.len(), "{what}");
    for (i, (&got, &exact)) in got.iter().zip(exact).enumerate() {
        let off = (f64::from(got) - exact).abs();
        assert!(
            off <= tolerance * (1.0 + exact.abs()),
            "{what}[{i}]: {got}, not {exact}"
        );
    }
}

/// The gradient of `sum of to_out * f(x)` by central differences.
fn differences(x: &[f32], to_out: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut x = f64s(x);
    let step = 1e-5;
    let weighted_sum = |x: &[f64]| -> f64 {
        f(x).iter()
            .zip(to_out)
            .map(|(y, &p)| y * f64::from(p))
            .sum()
    };
    (0..x.len())
        .map(|i| {
            let kept = x[i];
            x[i] = kept + step;
            let above = weighted_sum(&x);
            x[i] = kept - step;
            let below = weighted_sum(&x);
            x[i] = kept;
            (above - below) / (2.0 * step)
        })
        .collect()
}

#[test]
fn packed_product_matches_the_stored_numbers() {
    for (m, k, n) in [(1, 1, 1), (3, 70, 33), (16, 130, 64), (9, 64, 200)] {
        let (x, weight) = (numbers(m * k, 1), numbers(k * n, 2));
        let by_rows = Matrix::new(&weight, k, n);
        let by_columns: Vec<f32> = (0..n)
            .flat_map(|j| (0..k).map(move |i| (i, j)))
            .map(|(i, j)| weight[i * n + j])
            .collect();
        let by_columns = Matrix::new(&by_columns, n, k).transposed();
        for (format, tolerance) in [
            (PackedFormat::F32, 0.0),
            (PackedFormat::Bf16, 1.0 / 256.0),
            (PackedFormat::Int8, 1.0 / 254.0 + 1e-6),
        ] {
            let packed = PackedMatrix::new(by_rows, format);
            let stored = packed.unpacked();
            for (stored, weight) in stored.iter().zip(&weight) {
                assert!(
                    (stored - weight).abs() <= tolerance,
                    "{stored} for {weight}"
                );
            }
            let transposed = PackedMatrix::new(by_columns, format);
            assert_eq!(stored, transposed.unpacked());
            let exact: Vec<f64> = (0..m * n)
                .map(|at| {
                    let products = (0..k)
                        .map(|i| f64::from(x[at / n * k + i]) * f64::from(stored[i * n + at % n]));
                    products.sum()
                })
                .collect();
            let y = packed.left_product(Matrix::new(&x, m, k));
            close("y", &y, &exact, 1e-5);
            // A row by itself has the same bits.
            let last = packed.left_product(Matrix::new(&x[(m - 1) * k..], 1, k));
            assert_eq!(last, y[(m - 1) * n..]);
        }
    }
    let format = PackedFormat::Int8;
    let zeros = PackedMatrix::new(Matrix::new(&[0.0; 6], 2, 3), format);
    assert_eq!(zeros.left_product(Matrix::new(&[1.0, 2.0], 1, 2)), [0.0; 3]);
}

#[test]
fn rms_norm_matches_its_definition() {
    for (rows, width) in [(3, 5), (40, 16), (7, 70)] {
        let (x, gain, to_out) = (
            numbers(rows * width, 1),
            numbers(width, 2),
            numbers(rows * width, 3),
        );
        let norm = |x: &[f64], gain: &[f64]| -> Vec<f64> {
            x.chunks(width)
                .flat_map(|x| {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                    x.iter()
                        .zip(gain)
                        .map(move |(x, g)| x / (mean + 1e-5).sqrt() * g)
                })
                .collect()
        };
        let (y, factors) = rms_norm(&x, &gain, 1e-5);
        close("y", &y, &norm(&f64s(&x), &f64s(&gain)), 1e-5);
        let to_x = rms_norm_backward(&x, &gain, &factors, &to_out);
        close(
            "gradient of x",
            &to_x,
            &differences(&x, &to_out, |x| norm(x, &f64s(&gain))),
            1e-4,
        );
        let to_gain = rms_norm_gain_gradient(&x, width, &factors, &to_out);
        close(
            "gradient of gain",
            &to_gain,
            &differences(&gain, &to_out, |g| norm(&f64s(&x), g)),
            1e-4,
        );
    }
}

#[test]
fn swiglu_matches_its_definition() {
    let n = 3000;
    let (gate, up) = (
        numbers(n, 4).iter().map(|x| 20.0 * x).collect::<Vec<_>>(),
        numbers(n, 5),
    );
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let exact: Vec<f64> = f64s(&gate)
        .iter()
        .zip(f64s(&up))
        .map(|(&g, u)| silu(g) * u)
        .collect();
    close("swiglu", &swiglu(&gate, &up), &exact, 1e-6);
    let to_out = numbers(n, 6);
    let (to_gate, to_up) = swiglu_backward(&gate, &up, &to_out);
    let slope = |g: f64| (silu(g + 1e-6) - silu(g - 1e-6)) / 2e-6;
    let weighted = f64s(&gate).into_iter().zip(f64s(&up)).zip(f64s(&to_out));
    let (exact_gate, exact_up): (Vec<f64>, Vec<f64>) = weighted
        .map(|((g, u), p)| (p * u * slope(g), p * silu(g)))
        .unzip();
    close("gradient of gate", &to_gate, &exact_gate, 1e-5);
    close("gradient of up", &to_up, &exact_up, 1e-6);
    // Far from 0, silu is 0 or its argument.
    assert_eq!(swiglu(&[-200.0, 200.0], &[1.0, 1.0]), [0.0, 200.0]);
}

#[test]
fn rotation_of_pairs_and_its_inverse() {
    let (tokens, heads, half) = (6, 3, 4);
    let x = numbers(tokens * heads * 2 * half, 7);
    let angles = numbers(3 * half, 8);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let table = RotaryTable {
        cos: &cos,
        sin: &sin,
    };
    let turned = rotate(&x, heads, half, table, false);
    for token in 0..tokens {
        for head in 0..heads {
            for i in 0..half {
                let at = (token * heads + head) * 2 * half + i;
                let (a, b, angle) = (x[at], x[at + half], angles[token % 3 * half + i]);
                close(
                    "first",
                    &[turned[at]],
                    &[f64::from(a * angle.cos() - b * angle.sin())],
                    1e-6,
                );
                close(
                    "second",
                    &[turned[at + half]],
                    &[f64::from(b * angle.cos() + a * angle.sin())],
                    1e-6,
                );
            }
        }
    }
    close(
        "back",
        &rotate(&turned, heads, half, table, true),
        &f64s(&x),
        1e-6,
    );
}

#[test]
fn linear_matches_its_definition() {
    let (rows, inputs, outputs) = (5, 7, 3);
    let (x, w, b) = (
        numbers(rows * inputs, 9),
        numbers(inputs * outputs, 10),
        numbers(outputs, 11),
    );
    let mut exact = vec![0f64; rows * outputs];
    for i in 0..rows {
        for j in 0..outputs {
            let dot = |k: usize| f64::from(x[i * inputs + k]) * f64::from(w[k * outputs + j]);
            exact[i * outputs + j] = f64::from(b[j]) + (0..inputs).map(dot).sum::<f64>();
        }
    }
    let weight = Matrix::new(&w, inputs, outputs);
    close(
        "linear",
        &linear(Matrix::new(&x, rows, inputs), weight, Some(&b)),
        &exact,
        1e-6,
    );
    let sums: Vec<f64> = (0..inputs)
        .map(|k| (0..rows).map(|i| f64::from(x[i * inputs + k])).sum())
        .collect();
    close("sums", &sum_of_rows(&x, inputs), &sums, 1e-6);
}

/// The definition of attention.
fn plain_attention(
    shape: AttentionShape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    mask: Mask<'_>,
    scale: f64,
) -> Vec<f64> {
    let AttentionShape {
        rows,
        query_heads,
        key_heads,
        queries,
        keys,
        size,
    } = shape;
    let mut out = vec![0.0; rows * queries * query_heads * size];
    for row in 0..rows {
        let token = |column: usize| mask.tokens.is_none_or(|tokens| tokens[row][column]);
        let position = |column: usize| (0..column).filter(|&c| token(c)).count();
        for query in 0..queries {
            let own = keys - queries + query;
            for head in 0..query_heads {
                let q = &q[((row * queries + query) * query_heads + head) * size..][..size];
                let key_head = head / (query_heads / key_heads);
                let at = |column: usize| ((row * keys + column) * key_heads + key_head) * size;
                let seen: Vec<usize> = (0..=own)
                    .filter(|&c| token(c))
                    .filter(|&c| mask.window.is_none_or(|w| position(c) + w > position(own)))
                    .collect();
                let score = |c: &usize| {
                    let key = &k[at(*c)..][..size];
                    scale * q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                };
                let weights: Vec<f64> = seen.iter().map(|c| score(c).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let out = &mut out[((row * queries + query) * query_heads + head) * size..][..size];
                for (weight, &column) in weights.iter().zip(&seen) {
                    for (out, v) in out.iter_mut().zip(&v[at(column)..][..size]) {
                        *out += weight / sum * v;
                    }
                }
            }
        }
    }
    out
}

/// `[rows, positions, heads, size]`.
fn heads(data: &[f32], positions: usize, heads: usize, size: usize) -> Heads<'_> {
    Heads {
        data,
        strides: [positions * heads * size, size, heads * size],
    }
}

fn check_attention(shape: AttentionShape, mask: Mask<'_>, gradients: bool) {
    let AttentionShape {
        rows,
        query_heads,
        key_heads,
        queries,
        keys,
        size,
    } = shape;
    let query_len = rows * queries * query_heads * size;
    let key_len = rows * keys * key_heads * size;
    let (q, k, v) = (
        numbers(query_len, 12),
        numbers(key_len, 13),
        numbers(key_len, 14),
    );
    let (qs, ks, vs) = (
        heads(&q, queries, query_heads, size),
        heads(&k, keys, key_heads, size),
        heads(&v, keys, key_heads, size),
    );
    let scale = 1.3;
    let plain = |q: &[f64], k: &[f64], v: &[f64]| plain_attention(shape, q, k, v, mask, scale);
    let (out, sums) = attention(shape, qs, ks, vs, mask, scale as f32);
    let (q64, k64, v64) = (f64s(&q), f64s(&k), f64s(&v));
    close("attention", &out, &plain(&q64, &k64, &v64), 1e-5);
    if gradients {
        let to_out = numbers(query_len, 15);
        let weighted = heads(&to_out, queries, query_heads, size);
        let got = attention_backward(shape, qs, ks, vs, mask, scale as f32, &sums, weighted);
        close(
            "gradient of queries",
            &got.queries,
            &differences(&q, &to_out, |q| plain(q, &k64, &v64)),
            1e-4,
        );
        close(
            "gradient of keys",
            &got.keys,
            &differences(&k, &to_out, |k| plain(&q64, k, &v64)),
            1e-4,
        );
        close(
            "gradient of values",
            &got.values,
            &differences(&v, &to_out, |v| plain(&q64, &k64, v)),
            1e-4,
        );
    }
}

#[test]
fn attention_matches_its_definition() {
    let shape = AttentionShape {
        rows: 2,
        query_heads: 4,
        key_heads: 2,
        queries: 5,
        keys: 9,
        size: 6,
    };
    let holes: Vec<Vec<bool>> = (0..2)
        .map(|row| (0..9).map(|c| (c + row) % 4 != 1).collect())
        .collect();
    // The columns of the queries are tokens.
    let holes: Vec<Vec<bool>> = holes
        .into_iter()
        .map(|row| {
            row.into_iter()
                .enumerate()
                .map(|(c, t)| t || c >= 4)
                .collect()
        })
        .collect();
    for window in [None, Some(1), Some(3), Some(8)] {
        for tokens in [None, Some(holes.as_slice())] {
            let mask = Mask { tokens, window };
            check_attention(shape, mask, true);
            check_attention(
                AttentionShape {
                    queries: 1,
                    ..shape
                },
                mask,
                true,
            );
            check_attention(
                AttentionShape {
                    queries: 9,
                    keys: 9,
                    ..shape
                },
                Mask {
                    tokens: None,
                    window,
                },
                true,
            );
        }
    }
    // Several blocks of queries.
    let long = AttentionShape {
        rows: 1,
        query_heads: 2,
        key_heads: 1,
        queries: 150,
        keys: 200,
        size: 17,
    };
    check_attention(long, Mask::default(), false);
    check_attention(
        long,
        Mask {
            tokens: None,
            window: Some(20),
        },
        false,
    );
    check_attention(
        AttentionShape {
            queries: 70,
            keys: 70,
            size: 2,
            ..long
        },
        Mask {
            tokens: None,
            window: Some(66),
        },
        true,
    );
}

#[test]
fn strides_of_keys_and_values_do_not_change_the_result() {
    let shape = AttentionShape {
        rows: 2,
        query_heads: 2,
        key_heads: 2,
        queries: 3,
        keys: 4,
        size: 5,
    };
    let (q, k) = (numbers(2 * 3 * 2 * 5, 16), numbers(2 * 4 * 2 * 5, 17));
    let plain = heads(&k, 4, 2, 5);
    // [rows, heads, capacity, size] with room for 3 more columns.
    let mut wide = vec![f32::NAN; 2 * 2 * 7 * 5];
    for row in 0..2 {
        for head in 0..2 {
            for column in 0..4 {
                let from = ((row * 4 + column) * 2 + head) * 5;
                let to = ((row * 2 + head) * 7 + column) * 5;
                wide[to..to + 5].copy_from_slice(&k[from..from + 5]);
            }
        }
    }
    let wide = Heads {
        data: &wide,
        strides: [2 * 7 * 5, 7 * 5, 5],
    };
    let queries = heads(&q, 3, 2, 5);
    let mask = Mask::default();
    assert_eq!(
        attention(shape, queries, plain, plain, mask, 0.5),
        attention(shape, queries, wide, wide, mask, 0.5)
    );
}

#[test]
fn queries_without_visible_keys_get_zeros_and_finite_gradients() {
    let shape = AttentionShape {
        rows: 1,
        query_heads: 1,
        key_heads: 1,
        queries: 3,
        keys: 3,
        size: 2,
    };
    let x = numbers(6, 18);
    let at = heads(&x, 3, 1, 2);
    let mask = Mask {
        tokens: Some(&[vec![false, true, false]]),
        window: None,
    };
    let (out, sums) = attention(shape, at, at, at, mask, 1.0);
    assert_eq!(out[..2], [0.0, 0.0]);
    assert_eq!(out[2..4], x[2..4]);
    let back = attention_backward(shape, at, at, at, mask, 1.0, &sums, at);
    assert_eq!(back.queries[..2], [0.0, 0.0]);
    assert!(back.keys.iter().chain(&back.values).all(|x| x.is_finite()));
}

/// The definition of the token scores: log-prob and entropy of each token in turn.
fn plain_scores(
    hidden: &[f64],
    unembedding: &[f64],
    size: usize,
    targets: &[u32],
    temperature: f64,
) -> Vec<f64> {
    let words = unembedding.len() / size;
    hidden
        .chunks(size)
        .zip(targets)
        .flat_map(|(h, &target)| {
            let logit = |w: usize| {
                (0..size)
                    .map(|d| h[d] * unembedding[d * words + w])
                    .sum::<f64>()
                    / temperature
            };
            let logits: Vec<f64> = (0..words).map(logit).collect();
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            let log_p = |w: usize| logits[w] - sum.ln();
            [
                log_p(target as usize),
                -(0..words).map(|w| log_p(w).exp() * log_p(w)).sum::<f64>(),
            ]
        })
        .collect()
}

#[test]
fn token_scores_match_their_definition() {
    let (tokens, size, words) = (6, 4, 37);
    let hidden = numbers(tokens * size, 19)
        .iter()
        .map(|x| 3.0 * x)
        .collect::<Vec<_>>();
    let (unembedding, mut to_out) = (numbers(size * words, 20), numbers(2 * tokens, 21));
    let targets = [0, 5, 36, 20, 5, 7];
    to_out[4..6].fill(0.0); // a token without a gradient
    to_out[7] = 0.0;
    let transposed: Vec<f32> = (0..words * size)
        .map(|i| unembedding[i % size * words + i / size])
        .collect();
    let temperature = 0.7;
    let h = Matrix::new(&hidden, tokens, size);
    let layouts = [
        Matrix::new(&unembedding, size, words),
        Matrix::new(&transposed, words, size).transposed(),
    ];
    for (w, chunk) in layouts.into_iter().flat_map(|w| [(w, 2), (w, 100)]) {
        let scores = token_scores(h, w, &targets, temperature as f32, true, chunk);
        let got: Vec<f32> = scores
            .iter()
            .flat_map(|s| [s.log_prob, s.entropy])
            .collect();
        let plain = |h: &[f64], w: &[f64]| plain_scores(h, w, size, &targets, temperature);
        close(
            "scores",
            &got,
            &plain(&f64s(&hidden), &f64s(&unembedding)),
            1e-5,
        );
        let to_scores: Vec<[f32; 2]> = to_out.as_chunks().0.to_vec();
        let mut sum = vec![0f32; words * size];
        let to_hidden = token_scores_backward(
            h,
            w,
            &targets,
            temperature as f32,
            chunk,
            &scores,
            &to_scores,
            Some(&mut sum),
        );
        let exact = differences(&hidden, &to_out, |h| plain(h, &f64s(&unembedding)));
        close("gradient of hidden", &to_hidden, &exact, 1e-4);
        let exact = differences(&unembedding, &to_out, |w| plain(&f64s(&hidden), w));
        let sum: Vec<f32> = (0..size * words)
            .map(|i| sum[i % words * size + i / words])
            .collect();
        close("gradient of unembedding", &sum, &exact, 1e-4);
        let alone = token_scores(h, w, &targets, temperature as f32, false, chunk);
        assert!(
            alone
                .iter()
                .zip(&scores)
                .all(|(a, b)| a.log_prob == b.log_prob && a.entropy == 0.0)
        );
    }
}

#[test]
fn token_scores_of_infinite_huge_and_nan_logits() {
    let words = [f32::NEG_INFINITY, 1000.0, 999.0, -1000.0];
    let (one, w) = ([1.0], Matrix::new(&words, 1, 4));
    let score = token_scores(Matrix::new(&one, 1, 1), w, &[2], 1.0, true, 1)[0];
    let p = 1.0 / (1.0 + 1f64.exp());
    close("log-prob", &[score.log_prob], &[p.ln()], 1e-6);
    close(
        "entropy",
        &[score.entropy],
        &[-p * p.ln() - (1.0 - p) * (1.0 - p).ln()],
        1e-6,
    );
    let impossible = token_scores(Matrix::new(&one, 1, 1), w, &[0], 1.0, true, 1)[0];
    assert!(impossible.log_prob <= -1e4, "{impossible:?}");
    let nan = token_scores(Matrix::new(&[f32::NAN], 1, 1), w, &[1], 1.0, true, 1)[0];
    assert!(nan.log_prob.is_nan() && nan.entropy.is_nan(), "{nan:?}");
}

#[test]
fn adamw_matches_the_paper() {
    let n = 40_000;
    let (weight, gradient) = (numbers(n, 22), numbers(n, 23));
    let (mut first, mut second) = (
        numbers(n, 24),
        numbers(n, 25).iter().map(|x| x * x).collect::<Vec<_>>(),
    );
    let (w, m, v) = (f64s(&weight), f64s(&first), f64s(&second));
    let update = AdamW {
        beta_1: 0.9,
        beta_2: 0.99,
        epsilon: 1e-3,
        learning_rate: 0.1,
        keep: 0.95,
        scale: 0.5,
        corrections: [0.3, 0.2],
    };
    let weight = update.step(&weight, &gradient, &mut first, &mut second);
    let exact: Vec<f64> = (0..n)
        .map(|i| {
            let g = 0.5 * f64::from(gradient[i]);
            let (m, v) = (0.9 * m[i] + 0.1 * g, 0.99 * v[i] + 0.01 * g * g);
            0.95 * w[i] - 0.1 * (m / 0.3) / ((v / 0.2).sqrt() + 1e-3)
        })
        .collect();
    close("weights", &weight, &exact, 1e-5);
    let squares = sum_of_squares(&gradient);
    let exact: f64 = f64s(&gradient).iter().map(|g| g * g).sum();
    assert!((squares / exact - 1.0).abs() < 1e-6);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = AttentionShape {
        rows: 6,
        query_heads: 4,
        key_heads: 2,
        queries: 70,
        keys: 70,
        size: 32,
    };
    let run = || {
        let (q, k) = (numbers(6 * 70 * 4 * 32, 26), numbers(6 * 70 * 2 * 32, 27));
        let (queries, keys) = (heads(&q, 70, 4, 32), heads(&k, 70, 2, 32));
        let (out, sums) = attention(shape, queries, keys, keys, Mask::default(), 0.2);
        let to_out = heads(&out, 70, 4, 32);
        let back = attention_backward(
            shape,
            queries,
            keys,
            keys,
            Mask::default(),
            0.2,
            &sums,
            to_out,
        );
        let (y, factors) = rms_norm(&q, &k[..128], 1e-6);
        let gain = rms_norm_gain_gradient(&q, 128, &factors, &y);
        let weight = Matrix::new(&k[..128 * 64], 128, 64);
        let mapped = linear(Matrix::new(&y, 420, 128), weight, None);
        let targets: Vec<u32> = (0..420).map(|i| i % 64).collect();
        let scores = token_scores(Matrix::new(&y, 420, 128), weight, &targets, 1.0, true, 100);
        (out, back, gain, mapped, scores)
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(run)
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3));
}

#[test]
fn products_of_few_rows_match_the_general_product() {
    for (k, n) in [
        (1, 1030),
        (7, 1030),
        (64, 2048),
        (130, 5),
        (16, 3),
        (600, 130),
    ] {
        let (x, w) = (numbers(40 * k, 28), numbers(k * n, 29));
        let transposed: Vec<f32> = (0..n * k).map(|i| w[i % k * n + i / k]).collect();
        for weight in [
            Matrix::new(&w, k, n),
            Matrix::new(&transposed, n, k).transposed(),
        ] {
            // Few rows against 40 rows, which use the general product, and one row against the
            // definition.
            let all = rlvr_kernels::product(Matrix::new(&x, 40, k), weight);
            for rows in [1, 2, 5, 16, 17] {
                let got =
                    rlvr_kernels::product(Matrix::new(&x[3 * k..(3 + rows) * k], rows, k), weight);
                close("product", &got, &f64s(&all[3 * n..(3 + rows) * n]), 1e-5);
            }
            let dot = |row: usize, column: usize| -> f64 {
                (0..k)
                    .map(|i| f64::from(x[row * k + i]) * f64::from(w[i * n + column]))
                    .sum()
            };
            let one = rlvr_kernels::product(Matrix::new(&x[2 * k..3 * k], 1, k), weight);
            let exact: Vec<f64> = (0..n).map(|column| dot(2, column)).collect();
            close("one row", &one, &exact, 1e-5);
        }
    }
    assert!(rlvr_kernels::product(Matrix::new(&[], 0, 3), Matrix::new(&[0.0; 6], 3, 2)).is_empty());
    assert_eq!(
        rlvr_kernels::product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 2)),
        [0.0; 4]
    );
}

#[test]
#[should_panic(expected = "a product of 1 x 2 and 3 x 1024")]
fn product_panics_if_the_shapes_do_not_match() {
    let weight = vec![0.0; 3 * 1024];
    rlvr_kernels::product(
        Matrix::new(&[1.0, 2.0], 1, 2),
        Matrix::new(&weight, 3, 1024),
    );
}
