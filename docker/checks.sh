# For the scripts beside it: what must be there before anything is started. Each refusal is one line and exit code 2.

refuse() { # refuse PROBLEM FIX
    printf '%s: %s; %s\n' "$program" "$1" "$2" >&2
    exit 2
}

need_engine() {
    compose_version=$(docker compose version --short 2>/dev/null) ||
        refuse "\`docker compose\` does not answer" "install Docker with its Compose plugin, 2.20 or newer"
    case ${compose_version#v} in
    [01].* | 2.?.* | 2.1?.*) refuse "Compose $compose_version is too old" "2.20 or newer is needed" ;;
    esac
    docker info >/dev/null 2>&1 || refuse "the Docker engine does not answer" "start it, and run this as its user"
}

need_toolkit() { # need_toolkit ARGUMENTS-OF-COMPOSE…: where they ask for GPUs
    case " $* " in
    *" --profile gpu "* | *" --profile=gpu "*)
        command -v nvidia-container-runtime-hook >/dev/null ||
            refuse "--profile gpu: this host has no NVIDIA Container Toolkit" \
                "install nvidia-container-toolkit 1.17.8 or newer and restart Docker, or leave the profile out"
        ;;
    esac
}

need_secrets() { # need_secrets FIX NAME…
    fix=$1
    shift
    for name in "$@"; do
        file=secrets/$name
        [ -s "$file" ] || refuse "$file is missing or empty" "$fix"
        [ -z "$(find "$file" -perm /o+rwx)" ] || refuse "$file can be read by everybody" "chmod o-rwx $file"
    done
}
