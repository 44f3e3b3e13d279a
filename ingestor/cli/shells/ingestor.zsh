#compdef ingestor
# Completion of `ingestor` for zsh, as a file `_ingestor` in a folder of `fpath`, or sourced after compinit.
# Names come from folders that others may write to: nothing here is ever evaluated.

_ingestor() {
    local program=${words[1]/#\~/$HOME} line
    local -a values told
    for line in "${(@f)$(
        _INGESTOR_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
            _TYPER_COMPLETE_ARGS="${(j: :)words[1,CURRENT]}" "$program" 2>/dev/null
    )}"; do
        [[ -n $line ]] || continue
        values+=("${line%%$'\t'*}")
        told+=("${line/$'\t'/  -- }")
    done
    if (( $#values )); then
        compadd -l -d told -a values
    else
        _files
    fi
}

if [[ ${funcstack[1]} == _ingestor ]]; then
    _ingestor "$@"
else
    compdef _ingestor ingestor
fi
