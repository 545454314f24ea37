package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds the pages to what exists: each row of "Coming from
// FastAPI and River" names tests that there are, and each nats command is
// one that the end-to-end script runs.
func TestReadme(t *testing.T) {
	readme := readFile(t, "../../worker/README.md")
	tests, err := exec.Command("grep", "-rhoE", `^func Test\w+`, "../..", "--include=*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	table := readme[strings.Index(readme, "## Coming from FastAPI"):strings.Index(readme, "## Speed")]
	rows := 0
	for _, line := range strings.Split(table, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.Contains(line, "shown by") {
			continue
		}
		rows++
		named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test is named: %s", line)
		}
		for _, name := range named {
			if !strings.Contains(string(tests), "func "+name[1]+"\n") {
				t.Errorf("there is no %s: %s", name[1], line)
			}
		}
	}
	if rows < 15 {
		t.Errorf("%d rows in the table", rows)
	}
	scripts := readFile(t, "testdata/e2e/nats.txtar") + readFile(t, "testdata/e2e/readme.txtar") +
		readFile(t, "testdata/e2e/wire.txtar")
	command := regexp.MustCompile(`\$ nats -s nats://127.0.0.1:4222 (.*)`)
	for _, found := range command.FindAllStringSubmatch(readFile(t, "../../README.md")+readme, -1) {
		if !strings.Contains(scripts, "exec nats -s $demo_1 "+found[1]+"\n") {
			t.Errorf("no end-to-end script runs: %s", found[1])
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
