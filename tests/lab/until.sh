# Runs a test until it holds: until_true SECONDS CMD... Goes before the scripts of a test; bash.
until_true() {
    local deadline=$((SECONDS + $1)); shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "gave up waiting for $*" >&2; exit 1; }
        sleep 0.05
    done
}
