//! What `-R` reads: one command line a line, with blanks between the words and no quotes. The word `ipvsadm` is left out
//! wherever it stands, so that a script of such commands can be read as well.

/// The command lines of `text`, without those that are empty.
pub fn lines(text: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    text.split('\n')
        .map(|line| {
            line.split([' ', '\t', '\r'])
                .filter(|word| !word.is_empty() && *word != "ipvsadm" && *word != "ripvsadm")
                .map(str::to_owned)
                .collect::<Vec<String>>()
        })
        .filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_empty_lines_are_passed_over() {
        let text = "\n  -A   -t x:80\t-s rr  \r\n   \nipvsadm -C\nripvsadm\n-a ipvsadm 'rr'";
        let found: Vec<_> = lines(text).collect();
        assert_eq!(
            found,
            [
                vec!["-A", "-t", "x:80", "-s", "rr"],
                vec!["-C"],
                vec!["-a", "'rr'"]
            ]
        );
    }
}
