# Completion of advss in fish: advss --print-completion fish | source, in ~/.config/fish/config.fish, say.
function __advss_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l replies ($program --complete fish $words (commandline -ct) 2>/dev/null)
    if test (count $replies) -gt 0
        printf '%s\n' $replies
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c advss -f -a '(__advss_complete)'
