package main

import (
	"regexp"
	"strings"
	"testing"
)

// TestDependenciesSayWhy: each direct dependency says beside its name in
// go.mod what it is here for.
func TestDependenciesSayWhy(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`^(?:require )?\s*([a-z0-9.-]+\.[a-z]+/\S+) v\S+(?: // (.*))?$`)
	for _, file := range []string{"../../go.mod", "../../deploy/check/go.mod"} {
		direct := 0
		for _, text := range strings.Split(readFile(t, file), "\n") {
			found := line.FindStringSubmatch(text)
			if found == nil || strings.HasPrefix(found[2], "indirect") {
				continue
			}
			direct++
			if len(found[2]) < 5 {
				t.Errorf("%s: %s does not say why it is there", file, found[1])
			}
		}
		if direct < 5 {
			t.Errorf("%s has %d direct dependencies", file, direct)
		}
	}
}
