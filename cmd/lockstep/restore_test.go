//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"lockstep/worker/fleet"
)

// TestRestoredFromBackup runs the commands of the runbook as they stand there,
// with the real nats CLI: back up, destroy, restore.
func TestRestoredFromBackup(t *testing.T) {
	runbook, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(runbook), "## Back up and restore")
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, found[1])
	}
	if len(blocks) != 3 {
		t.Fatalf("the runbook has %d blocks of commands, and not one each to back up, restore and prove", len(blocks))
	}

	port := unusedPort(t)
	dir := layOut(t, "--url", fmt.Sprintf("tls://127.0.0.1:%d", port))
	home := t.TempDir()
	contexts := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(contexts, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "auth", "operator.json"), filepath.Join(contexts, "operator.json")); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(home, "lockstep")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shell := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "PATH="+home+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s%s", err, script, out)
		}
		return string(out)
	}
	start := func() *secured {
		s := startConfig(t, filepath.Join(dir, "secure.conf"), func(o *natsserver.Options) { o.Port = port })
		return &secured{s, filepath.Join(dir, "auth"), "certs"}
	}
	replicas := func(s *secured) (found []fleet.Status) {
		t.Helper()
		out := lockstep(t, append([]string{"status", "--json"}, s.flags("operator")...)...)
		if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) == 0 {
			t.Fatalf("%v: %s", err, out)
		}
		return found
	}
	operator := func(s *secured, args ...string) { lockstep(t, append(args, s.flags("operator")...)...) }

	s := start()
	operator(s, "init")
	stop1, stop2 := s.serve(t, "blue-1"), s.serve(t, "blue-2")
	file := filepath.Join(home, "events.jsonl")
	if err := writeFile(file, strings.Repeat(lesson+"\n", 300)); err != nil {
		t.Fatal(err)
	}
	operator(s, "learn", "--batch", "7", file)
	operator(s, "compact") // what is restored begins with a base
	operator(s, "teach", lesson)
	before := replicas(s)[0]
	shell(blocks[0])
	operator(s, "teach", lesson) // too late: it is lost
	stop1()
	stop2()
	s.server.Shutdown()
	s.server.WaitForShutdown()

	s = start() // with an empty store
	t.Log(shell(blocks[1]))
	s.serve(t, "blue-1")
	s.serve(t, "blue-2")
	for _, after := range replicas(s) {
		if after.Seq != before.Seq || after.Learned != before.Learned || after.Digest != before.Digest ||
			after.StateChain != before.StateChain ||
			after.Predicted != before.Predicted {
			t.Errorf("%+v\nis not what was backed up:\n%+v", after, before)
		}
	}
	t.Log(shell(blocks[2]))
	f, code := diagnose(t, s.flags("operator")...)
	for _, one := range f {
		if code != 0 {
			t.Errorf("%+v", one)
		}
	}
}
