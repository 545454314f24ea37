package replica

import (
	"fmt"
	"strings"
	"sync"

	"lockstep/worker/fleet"
)

// maxNamed is how many unreadable values are named at once; more are counted.
const maxNamed = 4

// unreadable tells an operator what stands in the fleet's buckets and cannot be
// read. What is below the keys that are read again and again is an advisory,
// which ends when the value is gone; the rest is logged once.
type unreadable struct {
	replica *Replica

	mu     sync.Mutex
	now    map[string]string // what the advisory says, by bucket; guarded by mu
	logged map[string]bool   // keys; guarded by mu
}

// periodic are the keys below which a replica reads again and again.
var periodic = []string{fleet.KeyHeartbeats, fleet.KeySnapshots}

// report takes in what a read of a bucket below a key has skipped.
func (u *unreadable) report(bucket, below string, skipped []fleet.Unreadable) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range skipped {
		if key := bucket + "/" + s.Key; !u.logged[key] && len(u.logged) < 1024 {
			u.logged[key] = true
			u.replica.log.Warn(
				"a value in a bucket cannot be read; it is skipped", "bucket", bucket, "key", s.Key, "reason",
				s.Reason,
			)
		}
	}
	for _, key := range periodic {
		if key == below {
			u.advise(bucket, skipped)
		}
	}
}

// advise raises the advisory, or ends it. The caller holds mu.
func (u *unreadable) advise(bucket string, skipped []fleet.Unreadable) {
	text := ""
	for i, s := range skipped[:min(len(skipped), maxNamed)] {
		if i > 0 {
			text += "; "
		}
		text += s.String()
	}
	if more := len(skipped) - maxNamed; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	if text == u.now[bucket] {
		return
	}
	u.now[bucket] = text
	var all []string
	for _, b := range []string{bucketHeartbeats, bucketCheckpoints} {
		if u.now[b] != "" {
			all = append(
				all,
				fmt.Sprintf(
					"the bucket %s_%s holds what cannot be read, and is skipped: %s", u.replica.cfg.Spec.Name, b,
					u.now[b],
				),
			)
		}
	}
	if len(all) == 0 {
		u.replica.endAdvice("unreadable")
		return
	}
	u.replica.advise("unreadable", strings.Join(all, "; "))
}

// The buckets, by the ends of their names.
const (
	bucketHeartbeats  = "replicas"
	bucketCheckpoints = "checkpoints"
)

// readers has the readers of a replica's buckets report what they skip.
func (r *Replica) readers() {
	if r.cfg.Checkpoints == nil {
		return
	}
	u := &unreadable{replica: r, now: map[string]string{}, logged: map[string]bool{}}
	reported := func(kv fleet.KV, bucket string) fleet.KV {
		return fleet.Reported{
			KV:     kv,
			Report: func(below string, skipped []fleet.Unreadable) { u.report(bucket, below, skipped) },
		}
	}
	r.cfg.Heartbeats = reported(r.cfg.Heartbeats, bucketHeartbeats)
	r.cfg.Checkpoints = reported(r.cfg.Checkpoints, bucketCheckpoints)
}
