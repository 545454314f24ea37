package check

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// composeEnv is what .env must say.
var composeEnv = map[string]string{"LOCKSTEP_USER": "1000:1000", "LOCKSTEP_VERSION": "1.2.3"}

func compose(t *testing.T, env map[string]string) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs(deploy)
	if err != nil {
		t.Fatal(err)
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: dir, Environment: maps.Clone(env), // it adds to them
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}},
	})
}

// TestCompose: Compose reads the file, all that it mounts is there or is made
// by the runbook, nothing is published to others, and no secret stands in it.
func TestCompose(t *testing.T) {
	project, err := compose(t, composeEnv)
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != 9 {
		t.Errorf("%d services", len(project.Services))
	}
	secret := regexp.MustCompile(`(?i)(password|token|secret|seed)`)
	for name, s := range project.Services { // order: each is looked at by itself
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q", name, p.Published, p.HostIP)
			}
		}
		if s.User != composeEnv["LOCKSTEP_USER"] || !s.ReadOnly || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" ||
			len(s.SecurityOpt) != 1 {
			t.Errorf(
				"%s is not tight: user %q, read only %t, drops %v, %v", name, s.User, s.ReadOnly, s.CapDrop,
				s.SecurityOpt,
			)
		}
		for key, value := range s.Environment { // order: each is looked at by itself
			if secret.MatchString(key) && value != nil && !strings.HasPrefix(*value, "/run/secrets/") {
				t.Errorf("%s: %s stands in the file", name, key)
			}
		}
		if strings.HasSuffix(s.Image, ":latest") || !strings.Contains(s.Image, ":") {
			t.Errorf("%s: the image %s has no version", name, s.Image)
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" || v.Bind == nil || v.Bind.CreateHostPath {
				t.Errorf("%s: %s would be made as root", name, v.Source)
			}
		}
	}
	runbook := string(read(t, "README.md"))
	there := func(what, file string) {
		made := strings.Contains(file, "/nats/auth/") || strings.Contains(file, "/secrets/")
		if _, err := os.Stat(file); err != nil && !made {
			t.Errorf("%s: %v", what, err)
		}
		if strings.Contains(file, "/secrets/") && !strings.Contains(runbook, "secrets/"+filepath.Base(file)) {
			t.Errorf("README.md does not say how to make %s", what)
		}
	}
	for name, c := range project.Configs { // order: each is looked at by itself
		there(name, c.File)
	}
	for name, s := range project.Secrets { // order: each is looked at by itself
		there(name, s.File)
	}
	for name := range composeEnv { // order: each is looked at by itself
		without := map[string]string{}
		for k, v := range composeEnv { // order: a map is made
			if k != name {
				without[k] = v
			}
		}
		if _, err := compose(t, without); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		if !strings.Contains(runbook, name) {
			t.Errorf("README.md does not name %s", name)
		}
	}
}

// TestSecretsStayOut: what the runbook has people make is in no commit and in
// no image.
func TestSecretsStayOut(t *testing.T) {
	ignored := strings.Split(string(read(t, "Dockerfile.dockerignore")), "\n")
	for _, path := range []string{"deploy/.env", "deploy/secrets", "deploy/data", "deploy/nats/auth"} {
		if !slices.Contains(ignored, path) {
			t.Errorf("%s gets into the image's build", path)
		}
		check := exec.Command("git", "check-ignore", "-q", path+"/file")
		if path == "deploy/.env" {
			check = exec.Command("git", "check-ignore", "-q", path)
		}
		check.Dir = filepath.Join(deploy, "..")
		if err := check.Run(); err != nil {
			t.Errorf("%s can be committed: %v", path, err)
		}
	}
}

// TestComposeIsStrict: a key that Compose does not know is an error.
func TestComposeIsStrict(t *testing.T) {
	text := strings.Replace(string(read(t, "compose.yaml")), "stop_grace_period:", "stop_grace_perod:", 1)
	_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: deploy, Environment: maps.Clone(composeEnv), ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(text)}},
	})
	if err == nil {
		t.Error("a key that is misspelt is accepted")
	}
}
