package check

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// goBuild builds a program of the main module.
func goBuild(t *testing.T, path string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(strings.TrimSuffix(path, "/v2")))
	build := exec.Command("go", "build", "-o", program, path)
	build.Dir = filepath.Join(deploy, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", path, err, out)
	}
	return program
}

// TestCommands: what compose, Kubernetes and systemd call, the program takes.
func TestCommands(t *testing.T) {
	program := goBuild(t, "./cmd/lockstep")
	calls := map[string][]string{}
	project, err := compose(t, composeEnv)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services { // order: a map is made
		if strings.HasPrefix(s.Image, "lockstep:") {
			calls["compose, "+name] = s.Command
		}
	}
	for name, p := range pods(manifests(t)) { // order: a map is made
		for _, c := range p.Spec.Containers {
			if c.Image == "lockstep" {
				calls["Kubernetes, "+name] = c.Args
			}
		}
	}
	unit := strings.ReplaceAll(string(read(t, "systemd", "lockstep-worker@.service")), "\\\n", " ")
	for _, set := range regexp.MustCompile(`(?m)^Environment=.*`).FindAllString(unit, -1) {
		for _, pair := range strings.Fields(strings.TrimPrefix(set, "Environment=")) {
			name, value, _ := strings.Cut(pair, "=")
			unit = strings.ReplaceAll(unit, "${"+name+"}", value)
		}
	}
	for _, line := range strings.Split(unit, "\n") {
		if command, ok := strings.CutPrefix(line, "ExecStart=/usr/local/bin/lockstep "); ok {
			calls["systemd"] = strings.Fields(command)
		}
	}
	if len(calls) != 7 {
		t.Errorf("%d calls", len(calls))
	}
	runbook := strings.ReplaceAll(string(read(t, "README.md")), "\\\n", " ")
	for _, found := range regexp.MustCompile(`(?m)^    lockstep ([^#\n]*)`).FindAllStringSubmatch(runbook, -1) {
		calls["the runbook, "+found[1]] = strings.Fields(found[1])
	}
	for where, args := range calls { // order: each is looked at by itself
		// Help of a command that is not there is the program's own.
		if out, err := exec.Command(program, append(args, "--help")...).CombinedOutput(); err != nil ||
			!strings.Contains(string(out), "\n  lockstep "+args[0]+" ") {
			t.Errorf("%s: lockstep %s: %v\n%s", where, strings.Join(args, " "), err, out)
		}
	}
}

// TestComposeServes starts what compose.yaml starts, as processes on this
// machine: the three servers with their configs and keys, the init job and
// the workers, each with its own command, environment and files.
func TestComposeServes(t *testing.T) {
	program, natsServer := goBuild(t, "./cmd/lockstep"), goBuild(t, "github.com/nats-io/nats-server/v2")
	auth := t.TempDir()
	if out, err := exec.Command(program, "roles", "--out", auth, "--at", "/etc/nats/auth", "--host", "nats-0,nats-1,nats-2,localhost,127.0.0.1").CombinedOutput(); err != nil {
		t.Fatalf("roles: %v\n%s", err, out)
	}
	project, err := compose(t, composeEnv)
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "http_token")
	if err := os.WriteFile(token, []byte("a token\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	// Names of the containers' network become ports of this machine.
	var names []string
	client, route, monitor := map[string]string{}, map[string]string{}, map[string]string{}
	for i := range 3 {
		name := fmt.Sprintf("nats-%d", i)
		names = append(names, name)
		client[name], route[name], monitor[name] = freeAddress(t), freeAddress(t), freeAddress(t)
	}
	here := func(text string) string {
		for _, name := range names {
			text = strings.NewReplacer(name+":4222", client[name], name+":6222", route[name]).Replace(text)
		}
		return text
	}

	for _, name := range names {
		s := project.Services[name]
		root := place(t, project, s, auth, token)
		patch(t, filepath.Join(root, "etc/nats/cluster.conf"), "0.0.0.0:4222", client[name], "0.0.0.0:6222", route[name])
		patch(t, filepath.Join(root, "etc/nats/common.conf"), "/var/lib/nats", filepath.Join(root, "store"))
		for _, file := range []string{"tls.conf", "routes.conf"} {
			patch(t, filepath.Join(root, "etc/nats/auth", file), "/etc/nats", filepath.Join(root, "etc/nats"))
		}
		start(t, name, environment(s, root, func(text string) string {
			return here(strings.Replace(text, "127.0.0.1:8222", monitor[name], 1))
		}), natsServer, inside(s.Command, root, here)...)
	}
	for _, name := range names {
		url := "http://" + monitor[name] + "/healthz"
		eventually(t, name+" is well", func() *exec.Cmd { return exec.Command(program, "health", url) })
	}

	job := project.Services["init"]
	root := place(t, project, job, auth, token)
	eventually(t, "init", func() *exec.Cmd {
		cmd := exec.Command(program, inside(job.Command, root, here)...)
		cmd.Env = environment(job, root, here)
		return cmd
	})
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		s := project.Services[name]
		root, door := place(t, project, s, auth, token), freeAddress(t)
		start(t, name, environment(s, root, here), program, inside(s.Command, root, func(text string) string {
			return here(strings.Replace(text, "0.0.0.0:8080", door, 1))
		})...)
		eventually(
			t, name+" is ready",
			func() *exec.Cmd { return exec.Command(program, "health", "http://"+door+"/readyz") },
		)
	}
	// Who looks, sees three; who may not teach, does not.
	as := func(user string, args ...string) *exec.Cmd {
		return exec.Command(program, append(
			args, "-s", "tls://"+client["nats-0"], "--tlsca", filepath.Join(auth, "ca.pem"), "--tlscert",
			filepath.Join(auth, user+".pem"), "--tlskey", filepath.Join(auth, user+"-key.pem"), "--inbox-prefix",
			"_INBOX."+user,
		)...)
	}
	out, err := as("observer", "status", "--json").Output()
	if err != nil || strings.Count(string(out), `"state":"ready"`) != 3 {
		t.Errorf("status as an observer: %v\n%s", err, out)
	}
	event := []string{"teach", "-f", "species=Gentoo", "-f", "island=Biscoe", "-f", "body_mass_g=5000"}
	if out, err := as("teacher", event...).CombinedOutput(); err != nil {
		t.Errorf("a teacher: %v\n%s", err, out)
	}
	if out, err := as("predictor", event...).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "right is missing") {
		t.Errorf("a predictor teaches: %v\n%s", err, out)
	}
}

// freeAddress is one of this machine that no one has.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// place lays a service's configs and secrets out under a root of its own, as
// Compose mounts them.
func place(t *testing.T, project *types.Project, s types.ServiceConfig, auth, token string) (root string) {
	t.Helper()
	root = t.TempDir()
	put := func(file, target string) {
		switch {
		case strings.Contains(file, "/nats/auth/"):
			file = filepath.Join(auth, filepath.Base(file))
		case strings.HasSuffix(file, "/secrets/http_token"):
			file = token
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, target)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range s.Configs {
		put(project.Configs[c.Source].File, c.Target)
	}
	for _, c := range s.Secrets {
		target := c.Target
		if !filepath.IsAbs(target) {
			target = "/run/secrets/" + c.Source
		}
		put(project.Secrets[c.Source].File, target)
	}
	return root
}

var mounted = regexp.MustCompile(`/(etc|run)/[\w./-]+`)

// rooted has paths of the container begin at its root.
func rooted(text, root string) string {
	return mounted.ReplaceAllStringFunc(text, func(path string) string { return root + path })
}

func inside(args []string, root string, here func(string) string) (out []string) {
	for _, a := range args {
		out = append(out, here(rooted(a, root)))
	}
	return out
}

func environment(s types.ServiceConfig, root string, here func(string) string) []string {
	out := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	for key, value := range s.Environment { // order: of no matter to a process
		if value != nil {
			out = append(out, key+"="+here(rooted(*value, root)))
		}
	}
	return out
}

func patch(t *testing.T, file string, pairs ...string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(data), pairs[i]) {
			t.Fatalf("%s has no %s", file, pairs[i])
		}
	}
	if err := os.WriteFile(file, []byte(strings.NewReplacer(pairs...).Replace(string(data))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs a process until the test ends; what it said is shown if the test
// fails.
func start(t *testing.T, name string, env []string, program string, args ...string) {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		forced := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		forced.Stop()
		if t.Failed() {
			text, _ := os.ReadFile(said.Name())
			t.Logf("%s:\n%s", name, text)
		}
		said.Close()
	})
}

// eventually runs a command again until it succeeds.
func eventually(t *testing.T, what string, command func() *exec.Cmd) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		out, err := command().CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
	}
}
