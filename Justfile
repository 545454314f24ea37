# The everyday recipes. CI runs the same commands: see .ci/run.

set shell := ["bash", "-euo", "pipefail", "-c"]

# list the recipes
default:
    @just --list --unsorted

# a server, three workers and 344 penguins, on this machine
demo *ARGS:
    go run ./cmd/lockstep demo {{ARGS}}

# the tests
test:
    go test ./...

# the tests under the race detector
race:
    go test -race ./...

# the program with the real nats CLI, which must be on the PATH, and under kill -9
e2e:
    go test -tags e2e -run 'EndToEnd|Killed|Stopped|Garbage|ColdStart|DamagedBlock|ServerDeath|Restored' ./cmd/lockstep

# every action as every role, on real servers: just roles, just roles --json
roles FORMAT="":
    #!/usr/bin/env bash
    set -euo pipefail
    case "{{FORMAT}}" in
    --json)
        matrix=$(mktemp)
        trap 'rm -f "$matrix"' EXIT
        LOCKSTEP_ROLES=$matrix go test -count 1 -run 'TestRoles$|TestWhoAsks' ./cmd/lockstep >&2
        cat "$matrix" ;;
    *)
        go test -count 1 -run 'TestRoles$|TestWhoAsks' -v ./cmd/lockstep ;;
    esac

# what strangers can send, as fast as it comes: just garbage 10m
garbage TIME="1m":
    LOCKSTEP_GARBAGE={{TIME}} go test -tags e2e -timeout 0 -run Garbage -v ./cmd/lockstep

# fleets of workers on a fake clock, each from a seed: just sim 100000, just sim 1000 --json
sim SEEDS="1000" *ARGS:
    go test ./worker -timeout 0 -run Simulation -v -sim.seeds {{SEEDS}} {{replace(ARGS, "--json", "-sim.json | grep '^{'")}}

# a real cluster of three servers and four workers, killed, stopped, cut off and filled up: just torture 1800 --json
torture SECONDS="120" JSON="":
    LOCKSTEP_TORTURE={{SECONDS}}s LOCKSTEP_JSON={{JSON}} go test -tags e2e -timeout 0 -run 'TestTorture$' -v ./cmd/lockstep {{if JSON == "" {""} else {"| grep '^{'"}}}

# a cluster under load: its servers and then its workers replaced one by one
rolling:
    go test -tags e2e -timeout 10m -run 'TestRollingRestart$' -v ./cmd/lockstep

# the program for six platforms, with manual pages, completions and checksums, in dist: just release 1.2.3
release VERSION *ARGS:
    go run .ci/release.go {{ARGS}} {{VERSION}}

# what deploy holds, checked by the types and tools of those who read it
deploy:
    .ci/deploy

# format, vet, and the linters
lint:
    gofmt -l -w cmd bus deploy model worker
    go vet ./...
    go vet -tags e2e ./...
    staticcheck ./...

# fuzz one target for a while: just fuzz FuzzLearn 1m, just fuzz FuzzHeaders 1m ./worker
fuzz TARGET TIME="30s" PACKAGE="./model":
    go test -run '^$' -fuzz '^{{TARGET}}$' -fuzztime {{TIME}} -fuzzminimizetime 10x {{PACKAGE}}

# the digests on ten processors, most of them emulated (Debian: qemu-user-static, nodejs)
cross:
    .ci/cross more

# the FastAPI app that Lockstep replaces, and Lockstep: the same requests, the same bodies
parity:
    .ci/peers TestParity

# the live page in a real browser (Debian: chromium): LOCKSTEP_SHOTS=FOLDER keeps screenshots
page:
    go test -tags e2e -count 1 -run TestPage -v ./worker/web

# planted bugs, each with the test that must find it
mutants *ARGS:
    go run .ci/mutants.go {{ARGS}}

# Lockstep beside the floor of this machine
bench *ARGS:
    go run ./cmd/lockstep bench {{ARGS}}

# Lockstep beside River and the FastAPI app, with their dependencies from PyPI: just bench-peers --json
bench-peers JSON="":
    LOCKSTEP_JSON={{JSON}} .ci/peers TestPeers {{if JSON == "" {""} else {"| grep '^{'"}}}

# rewrite the transcripts by what the fold says now; read the diff
transcripts:
    go test ./model -run Transcripts -update
    git diff --stat model/testdata/transcripts

# all that CI runs
ci:
    bash .ci/run
