//! Covering arrays: a few combinations that contain every tuple of choices.

use super::parts::{Parts, Places};

/// The tuples of choices that are covered.
struct Met {
    sizes: Places,
    groups: Vec<Vec<usize>>,
    /// For each group of parts, by their choices.
    met: Vec<Vec<bool>>,
}

impl Met {
    fn new(sizes: Places, size: usize) -> Self {
        let parts = 0..sizes.len();
        let members = |set: u32| parts.clone().filter(move |part| set >> part & 1 == 1);
        let groups: Vec<Vec<usize>> = (0u32..1 << sizes.len())
            .filter(|set| set.count_ones() as usize == size)
            .map(|set| members(set).collect())
            .collect();
        let choices = |group: &Vec<usize>| group.iter().map(|&part| sizes[part]).product();
        Self {
            sizes,
            met: groups
                .iter()
                .map(|group| vec![false; choices(group)])
                .collect(),
            groups,
        }
    }

    /// The index of the tuple in `places` of a group of parts.
    fn at(&self, group: &[usize], places: &Places) -> usize {
        let choices = group.iter().map(|&part| (self.sizes[part], places[part]));
        choices.fold(0, |at, (size, place)| at * size + place)
    }

    /// The number of tuples in `places` that are not covered yet.
    fn new_tuples(&self, places: &Places) -> usize {
        let groups = self.groups.iter().zip(&self.met);
        groups
            .filter(|(group, met)| !met[self.at(group, places)])
            .count()
    }

    /// Marks the tuples in `places` as covered.
    fn cover(&mut self, places: &Places) {
        for index in 0..self.groups.len() {
            let at = self.at(&self.groups[index], places);
            self.met[index][at] = true;
        }
    }
}

/// Valid combinations in which any `size` choices occur together that occur together in a valid
/// combination at all.
pub fn covering(parts: &Parts, size: usize) -> Vec<Places> {
    let mut met = Met::new(parts.sizes(), size);
    let mut chosen = Vec::new();
    // First the combinations that cover many tuples at once.
    for least in [met.groups.len() / 4, 1] {
        for index in 0..parts.count() {
            // Coprime to the number of combinations: each comes once, neighbours far apart.
            let places = parts.places(index * 1_000_003 % parts.count());
            if met.new_tuples(&places) >= least && parts.contradictions(places).is_empty() {
                met.cover(&places);
                chosen.push(places);
            }
        }
    }
    chosen
}
