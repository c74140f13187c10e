"""Print the completion script of a shell; put this line where the shell starts:

bash   eval "$(aptlab completion bash)"                                   in ~/.bashrc
zsh    eval "$(aptlab completion zsh)"                                    in ~/.zshrc, after compinit
fish   aptlab completion fish > ~/.config/fish/completions/aptlab.fish    once
"""

from __future__ import annotations

from aptlab.errors import ConfigError, suggest_option
from aptlab.shown import print_shown

# Bash breaks words at "=", so the words are taken from the line itself and the part before "=" is cut off again.
BASH = r"""_aptlab() {
    local line="${COMP_LINE:0:COMP_POINT}" current="" cut="" candidate
    local -a words=()
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    [[ "$current" == *=* && "$COMP_WORDBREAKS" == *=* ]] && cut="${current%=*}="
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -n "$candidate" ]] && COMPREPLY+=("${candidate#"$cut"}")
    done < <(aptlab __complete "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=./] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _aptlab aptlab
"""

ZSH = r"""#compdef aptlab
_aptlab() {
    local -a found open closed
    found=("${(@f)$(aptlab __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    open=(${(M)found:#*[=./]})
    closed=(${found:#*[=./]})
    (( ${#open} )) && compadd -S '' -- "${open[@]}"
    (( ${#closed} )) && compadd -- "${closed[@]}"
}
compdef _aptlab aptlab
"""

FISH = r"""function __aptlab_candidates
    set -l words (commandline -opc) (commandline -ct)
    aptlab __complete $words[2..-1] 2>/dev/null
end
complete -c aptlab -f -a '(__aptlab_candidates)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(args: list[str]) -> int:
    """Print the script of one shell."""
    if len(args) != 1 or args[0] not in SCRIPTS:
        shell = " ".join(args)
        raise ConfigError(f"aptlab completion {shell}".rstrip() + f": name a shell{suggest_option(shell, SCRIPTS)}")
    print_shown(SCRIPTS[args[0]], end="")
    return 0
