package serve

import (
	"math/big"
	"regexp"
	"testing"
	"time"
)

// FuzzHeaders: what the headers of a request ask for is what a stricter
// reading says, or refused.
func FuzzHeaders(f *testing.F) {
	for _, seed := range [][2]string{{"", ""}, {"345", "500ms"}, {"-1", "0s"}, {"18446744073709551616", "61s"}, {"+1", "1h"}, {" 1", "1e3s"}, {"0x10", "1.5s"}, {"1_000", "NaN"}} {
		f.Add(seed[0], seed[1])
	}
	number := regexp.MustCompile(`^[0-9]+$`)
	f.Fuzz(func(t *testing.T, minSeq, patience string) {
		w, err := parseWants(minSeq, patience)
		seq, ok := new(big.Int).SetString(minSeq, 10)
		fits := minSeq == "" || number.MatchString(minSeq) && ok && seq.IsUint64()
		long, durationErr := time.ParseDuration(patience)
		fits = fits && (patience == "" || durationErr == nil && long > 0 && long <= time.Minute)
		if fits != (err == nil) {
			t.Fatalf("%q %q: %v", minSeq, patience, err)
		}
		if err == nil &&
			(minSeq != "" && seq.Uint64() != w.minSeq || patience != "" && w.timeout != long || w.timeout <= 0) {
			t.Fatalf("%q %q: %+v", minSeq, patience, w)
		}
	})
}
