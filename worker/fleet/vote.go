package fleet

import (
	"maps"
	"slices"
)

// Ruling is what a checkpoint's attestations mean for one replica.
type Ruling int

// The rulings.
const (
	Undecided Ruling = iota // not all have attested, and none differs
	Unanimous               // all that vote agree
	Upheld                  // some differ from this replica, and a strict majority agrees with it
	Outvoted                // a strict majority agrees on something else
	Split                   // there is no strict majority
)

func (r Ruling) String() string {
	return [...]string{"undecided", "unanimous", "upheld", "outvoted", "split"}[r]
}

// Judge rules on a replica's attestation, and returns the attestations that
// differ from it. votes are the attestations of the others; voters names those
// whose votes count: replicas that serve, or would but for a trial. An arbiter
// always votes. The order in which replicas attested means nothing.
func Judge(mine Attestation, votes []Attestation, voters map[string]bool) (r Ruling, differ []Attestation) {
	electorate, attested, same := 1, 1, 1
	for name := range voters { // order: only counted
		if name != mine.Replica {
			electorate++
		}
	}
	groups := []Attestation{}
	sizes := []int{}
	for _, a := range votes {
		if a.Replica == mine.Replica || !a.Comparable(mine) || !a.Arbiter && !voters[a.Replica] {
			continue
		}
		if a.Arbiter {
			electorate++
		}
		attested++
		if a.Same(mine) {
			same++
			continue
		}
		differ = append(differ, a)
		i := slices.IndexFunc(groups, a.Same)
		if i < 0 {
			i, groups, sizes = len(groups), append(groups, a), append(sizes, 0)
		}
		sizes[i]++
	}
	switch {
	case len(differ) == 0 && attested < electorate:
		return Undecided, nil
	case len(differ) == 0:
		return Unanimous, nil
	case 2*same > electorate:
		return Upheld, differ
	case 2*slices.Max(sizes) > electorate:
		return Outvoted, differ
	}
	return Split, differ
}

// Agreeing returns the names of the voters that agree with a replica, its own
// first.
func Agreeing(mine Attestation, votes []Attestation, voters map[string]bool) []string {
	agree := []string{mine.Replica}
	for _, v := range votes {
		if v.Replica != mine.Replica && voters[v.Replica] && v.Comparable(mine) && v.Same(mine) {
			agree = append(agree, v.Replica)
		}
	}
	return agree
}

// Current leaves out what a live replica attested in an earlier process or an
// earlier fold: it may not reach that checkpoint again.
func Current(votes []Attestation, peers []Heartbeat) []Attestation {
	return slices.DeleteFunc(votes, func(v Attestation) bool {
		return slices.ContainsFunc(peers, func(p Heartbeat) bool {
			return p.Replica == v.Replica && (p.Boot != v.Boot || p.Fold != v.Fold)
		})
	})
}

// SameLog leaves out those that have read another log than a replica's, from
// the votes and from the voters.
func SameLog(mine Attestation, votes []Attestation, voters map[string]bool) ([]Attestation, map[string]bool) {
	voters = maps.Clone(voters)
	var same []Attestation
	for _, v := range votes {
		if v.Comparable(mine) && v.LogChain != mine.LogChain && v.Replica != mine.Replica {
			delete(voters, v.Replica)
		} else {
			same = append(same, v)
		}
	}
	return same, voters
}
