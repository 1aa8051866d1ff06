//! A few combinations in which everything meets everything.

use crate::parts::{Parts, Places};

/// Which choices of which parts have met.
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

    /// Marks what meets in `places`, if that is news for at least so many groups.
    fn adds(&mut self, places: Places, least: usize) -> bool {
        let at = |group: &Vec<usize>| {
            let choices = group.iter().map(|&part| (self.sizes[part], places[part]));
            choices.fold(0, |at, (size, place)| at * size + place)
        };
        let at: Vec<usize> = self.groups.iter().map(at).collect();
        let new = at.iter().zip(&self.met).filter(|(at, met)| !met[**at]);
        if new.count() < least {
            return false;
        }
        for (at, met) in at.into_iter().zip(&mut self.met) {
            met[at] = true;
        }
        true
    }
}

/// Valid combinations in which any `size` choices occur together that occur together in a valid combination at all.
pub fn covering(parts: &Parts, size: usize) -> Vec<Places> {
    let mut met = Met::new(parts.sizes(), size);
    let mut chosen = Vec::new();
    // First those that bring much at once.
    for least in [met.groups.len() / 4, 1] {
        for index in 0..parts.count() {
            // Coprime to the number of combinations: each comes once, neighbours far apart.
            let places = parts.places(index * 1_000_003 % parts.count());
            if parts.contradictions(places).is_empty() && met.adds(places, least) {
                chosen.push(places);
            }
        }
    }
    chosen
}
