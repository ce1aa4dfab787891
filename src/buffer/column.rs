//! A column of numbers, lossless: whole numbers of some decimal where every value comes back bit for bit, else the
//! raw bits. Shared by blocks and roll-ups.

use super::bytes::{Cursor, put_signed};

/// Powers of ten that a double holds exactly and that leave room for the digits of a meter.
const TENS: [f64; 13] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
/// Whole numbers up to here are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Marks a column of raw bits; below it stands the order of difference.
const RAW: u8 = 3;

/// Appends the values; their number is the reader's to know.
pub(super) fn put_values(out: &mut Vec<u8>, values: &[f64]) {
    match as_whole_numbers(values) {
        Some((decimals, numbers)) => put_whole_numbers(out, decimals, &numbers),
        None => put_raw(out, values),
    }
}

/// The inverse of [`put_values`]; `None` when malformed or when a value is not finite.
pub(super) fn get_values(cursor: &mut Cursor<'_>, count: usize) -> Option<Vec<f64>> {
    let mode = cursor.byte()?;
    if mode == RAW {
        return get_raw(cursor, count);
    }
    if mode > RAW {
        return None;
    }
    let ten = *TENS.get(usize::from(cursor.byte()?))?;
    // Every number takes a byte at least, so a false count cannot ask for much memory.
    let mut values = Vec::with_capacity(count.min(cursor.0.len()));
    let mut differences = [0i64; 2];
    for _ in 0..count {
        let number = integrate(&mut differences, mode, cursor.signed()?);
        values.push(number as f64 / ten);
    }
    Some(values)
}

fn as_whole_numbers(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    'decimals: for (decimals, ten) in (0u8..).zip(TENS) {
        let mut numbers = Vec::with_capacity(values.len());
        for value in values {
            let number = (value * ten).round();
            if number.abs() > EXACT {
                return None;
            }
            if (number / ten).to_bits() != value.to_bits() || (number == 0.0 && value.is_sign_negative()) {
                continue 'decimals;
            }
            numbers.push(number as i64);
        }
        return Some((decimals, numbers));
    }
    None
}

fn put_whole_numbers(out: &mut Vec<u8>, decimals: u8, numbers: &[i64]) {
    let candidates = (0..RAW).map(|order| {
        let mut bytes = vec![order, decimals];
        let mut state = [0i64; 2];
        for number in numbers {
            put_signed(&mut bytes, differentiate(&mut state, order, *number));
        }
        bytes
    });
    out.extend(candidates.min_by_key(Vec::len).unwrap_or_default());
}

/// `state` holds the last number and the last difference.
fn differentiate(state: &mut [i64; 2], order: u8, number: i64) -> i64 {
    let difference = number.wrapping_sub(state[0]);
    let second = difference.wrapping_sub(state[1]);
    *state = [number, difference];
    match order {
        0 => number,
        1 => difference,
        _ => second,
    }
}

fn integrate(state: &mut [i64; 2], order: u8, coded: i64) -> i64 {
    let number = match order {
        0 => coded,
        1 => state[0].wrapping_add(coded),
        _ => state[0].wrapping_add(state[1].wrapping_add(coded)),
    };
    *state = [number, number.wrapping_sub(state[0])];
    number
}

/// Bits changed since the value before, one plane of bytes after the other, which the compressor likes better.
fn put_raw(out: &mut Vec<u8>, values: &[f64]) {
    out.push(RAW);
    for plane in 0..8 {
        let mut before = 0;
        for value in values {
            let bits = value.to_bits();
            out.push(((bits ^ before) >> (56 - 8 * plane)) as u8);
            before = bits;
        }
    }
}

fn get_raw(cursor: &mut Cursor<'_>, count: usize) -> Option<Vec<f64>> {
    let bytes = cursor.take(count.checked_mul(8)?)?;
    let mut changes = vec![0u64; count];
    for plane in bytes.chunks_exact(count.max(1)) {
        for (change, byte) in changes.iter_mut().zip(plane) {
            *change = *change << 8 | u64::from(*byte);
        }
    }
    let mut bits = 0;
    changes
        .into_iter()
        .map(|change| {
            bits ^= change;
            Some(f64::from_bits(bits)).filter(|value| value.is_finite())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(values: &[f64]) -> usize {
        let mut out = Vec::new();
        put_values(&mut out, values);
        let mut cursor = Cursor(&out);
        let back = get_values(&mut cursor, values.len()).expect("decodes");
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        assert!(cursor.0.is_empty());
        out.len()
    }

    #[test]
    fn odd_values_come_back_bit_for_bit() {
        let odd = [-0.0, 0.0, 1e300, -1e-300, f64::MIN_POSITIVE, f64::MAX, 0.1 + 0.2, 1.0 / 3.0, 9e15, 5e-324];
        there_and_back(&odd);
        for value in odd {
            there_and_back(&[value]);
            there_and_back(&[1.5, value, 2.25]);
        }
        there_and_back(&[]);
    }

    #[test]
    fn an_index_in_hundredths_takes_a_byte_a_reading() {
        let index = (0..1000).map(|n| f64::from(1_234_567 + n * 3) / 100.0).collect::<Vec<_>>();
        assert!(there_and_back(&index) < 1010);
    }

    #[test]
    fn a_value_that_is_not_a_number_is_not_believed() {
        let mut out = Vec::new();
        put_raw(&mut out, &[f64::NAN]);
        assert_eq!(get_values(&mut Cursor(&out), 1), None);
    }
}
