package bus

import (
	"testing"
	"time"
)

// TestExamineVersion: what is too old is named, and what to do.
func TestExamineVersion(t *testing.T) {
	for version, want := range map[string]Level{
		"2.10.29": Fail, "2.11.16": Fail, "2.12.0": Fail, "2.12.6": Fail, "2.12.7": OK, "2.12.11": OK, "2.13.0": Fail, "2.14.0": OK, "2.14.4": Fail, "2.14.5": OK, "2.12.14": Fail, "2.14.4-beta.1": Fail, "2.15.2": OK, "3.0.0": OK, "2.14.0-RC.1": OK, "next": Unknown,
	} {
		var f Findings
		f.examineVersion("n", version)
		if f.Worst() != want || want == Fail && f[0].Mend == "" {
			t.Errorf("%s: %v, want %s", version, f, want)
		}
	}
}

// TestExamineClock: the way to the server and back is no skew.
func TestExamineClock(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		server time.Duration // after the question
		took   time.Duration
		want   Level
	}{
		{5 * time.Second, 10 * time.Second, OK},
		{0, 0, OK},
		{-3 * time.Second, time.Second, Warn},
		{4 * time.Second, time.Second, Warn},
		{-time.Hour, time.Second, Fail},
		{time.Hour, time.Second, Fail},
	} {
		var f Findings
		f.examineClock(now.Add(c.server), now, now.Add(c.took))
		if f.Worst() != c.want {
			t.Errorf("%+v: %v", c, f)
		}
	}
}
