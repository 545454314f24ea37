module lockstep

go 1.26.0

require (
	charm.land/bubbletea/v2 v2.1.1 // lockstep top draws on a terminal
	github.com/adrg/xdg v0.5.3 // where the demo keeps its log, on each system
	github.com/charmbracelet/x/vt v0.1.0 // tests: draws what a terminal would show
	github.com/chromedp/cdproto v0.159.0 // tests: what the browser says of itself
	github.com/chromedp/chromedp v0.23.0 // tests: a real browser opens the page
	github.com/creack/pty v1.1.24 // tests: a terminal for the program to write to
	github.com/go-json-experiment/json v1.27.2 // tells numbers from texts as pydantic does, at the HTTP door
	github.com/gofrs/flock v0.13.2 // one embedded server a store
	github.com/jedib0t/go-pretty/v6 v6.8.3 // tables on a terminal
	github.com/lmittmann/tint v1.2.1 // logs on a terminal
	github.com/nats-io/jsm.go v0.5.1 // the nats CLI's contexts
	github.com/nats-io/jwt/v2 v2.8.2 // creds for roles
	github.com/nats-io/nats-server/v2 v2.15.2 // the demo and the tests run a real server in their process
	github.com/nats-io/nats.go v1.55.0 // NATS, JetStream, micro
	github.com/nats-io/nkeys v0.4.16 // keys for roles
	github.com/nats-io/nuid v1.0.1 // ids of messages and workers
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/rogpeppe/go-internal v1.16.0 // tests: scripts that run the program from outside
	github.com/spf13/cobra v1.10.2 // commands, completions, manual pages
	github.com/spf13/pflag v1.0.9 // tests: each flag of each command has its sentence
	go.uber.org/goleak v1.3.0 // tests: no goroutine is left behind
	go.yaml.in/yaml/v3 v3.0.6 // a model's spec
	golang.org/x/net v0.61.0 // the HTTP door holds only so many connections
	golang.org/x/term v0.47.0 // is it a terminal?
	golang.org/x/text v0.43.0 // the characters of Latin-1 and Windows-1252 files
)

require (
	github.com/antithesishq/antithesis-sdk-go v0.8.0 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/charmbracelet/colorprofile v0.4.3 // indirect
	github.com/charmbracelet/ultraviolet v0.0.0-20261008173134-6b8d4baf91b4 // indirect
	github.com/charmbracelet/x/ansi v0.11.9 // indirect
	github.com/charmbracelet/x/exp/ordered v0.1.0 // indirect
	github.com/charmbracelet/x/term v0.2.2 // indirect
	github.com/charmbracelet/x/termios v0.1.1 // indirect
	github.com/charmbracelet/x/windows v0.2.2 // indirect
	github.com/clipperhouse/displaywidth v0.11.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.6 // indirect
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/expr-lang/expr v1.17.8 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/lucasb-eyer/go-colorful v1.4.1 // indirect
	github.com/mattn/go-runewidth v0.0.31 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/muesli/cancelreader v0.2.2 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.1 // indirect
	github.com/prometheus/procfs v0.23.0 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/xo/terminfo v1.0.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
