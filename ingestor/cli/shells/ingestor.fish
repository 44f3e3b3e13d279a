# Completion of `ingestor` for fish.
# Names come from folders that others may write to: nothing here is ever evaluated.

function __ingestor_complete
    set -l words (commandline --tokenize --current-process --cut-at-cursor)
    set -l program (string replace --regex '^~' $HOME -- $words[1])
    set -lx _INGESTOR_COMPLETE complete_fish
    set -lx _TYPER_COMPLETE_FISH_ACTION get-args
    set -lx _TYPER_COMPLETE_ARGS (commandline --current-process --cut-at-cursor)
    set -l found ($program 2>/dev/null)
    if test -n "$found"
        string join \n -- $found
    else
        __fish_complete_path (commandline --current-token)
    end
end

complete --command ingestor --no-files --arguments '(__ingestor_complete)'
