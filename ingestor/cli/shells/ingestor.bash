# Completion of `ingestor` for bash 4.4 and newer.
# Names come from folders that others may write to: nothing here is ever evaluated.

_ingestor() {
    local program=${1/#\~/$HOME} value
    local -a values
    mapfile -t values < <(
        IFS=$'\n' COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _INGESTOR_COMPLETE=complete_bash \
            "$program" 2>/dev/null
    )
    COMPREPLY=()
    for value in "${values[@]}"; do
        [[ -n $value ]] || continue
        [[ $value != *[[:space:]\'\"\\\$\`\(\)\<\>\&\;\|\*\?\[\]\{\}\!\#\~]* ]] || printf -v value %q "$value"
        COMPREPLY+=("$value")
    done
}

complete -o bashdefault -o default -F _ingestor ingestor
