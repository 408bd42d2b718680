#compdef advss
# Completion of advss in zsh: source <(advss --print-completion zsh), in ~/.zshrc after compinit, say.
_advss() {
    local line
    local -a names shown
    for line in ${(f)"$(${(Q)words[1]/#\~/$HOME} --complete zsh "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)"}; do
        names+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done
    if (( $#names )); then
        compadd -l -d shown -- "${names[@]}"
    else
        _files
    fi
}
compdef _advss advss
