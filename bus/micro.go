package bus

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// A service as `nats micro` knows it: it answers what NATS' service protocol
// (ADR-32) asks, in the types of nats.go's package micro. That package itself
// counts a request when its handler returns. Here many requests are answered
// later, or refused later, and what an operator reads must count those: so a
// request is counted once it is answered, with the time until then.

// board is what a service says of itself.
type board struct {
	identity    micro.ServiceIdentity
	description string
	started     time.Time
	endpoints   []*tracked
}

// tracked is an endpoint with what was counted of it.
type tracked struct {
	Endpoint
	mu    sync.Mutex
	stats micro.EndpointStats // guarded by mu
}

func newBoard(config *ServiceConfig) *board {
	b := &board{description: config.Description, started: time.Now().UTC()}
	b.identity = micro.ServiceIdentity{Name: config.Name, ID: NewID(), Version: config.Version, Metadata: config.Metadata}
	if b.identity.Metadata == nil {
		b.identity.Metadata = map[string]string{}
	}
	for _, e := range config.Endpoints {
		b.endpoints = append(b.endpoints, &tracked{
			Endpoint: e, stats: micro.EndpointStats{Name: e.Name, Subject: e.Subject, QueueGroup: e.Queue},
		})
	}
	return b
}

// count takes in an answer: an error's code and description, or 0.
func (e *tracked) count(code int, description string, took time.Duration) {
	e.mu.Lock()
	s := &e.stats
	s.NumRequests++
	s.ProcessingTime += took
	s.AverageProcessingTime = s.ProcessingTime / time.Duration(s.NumRequests)
	if code != 0 {
		s.NumErrors++
		s.LastError = strconv.Itoa(code) + ":" + description
	}
	e.mu.Unlock()
	if e.Answered != nil {
		e.Answered(code, took)
	}
}

func (b *board) ping() any {
	return micro.Ping{ServiceIdentity: b.identity, Type: micro.PingResponseType}
}

func (b *board) info() any {
	info := micro.Info{ServiceIdentity: b.identity, Type: micro.InfoResponseType, Description: b.description}
	for _, e := range b.endpoints {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.Name, Subject: e.Subject, QueueGroup: e.Queue, Metadata: map[string]string{},
		})
	}
	return info
}

func (b *board) stats() any {
	stats := micro.Stats{ServiceIdentity: b.identity, Type: micro.StatsResponseType, Started: b.started}
	for _, e := range b.endpoints {
		e.mu.Lock()
		now := e.stats
		e.mu.Unlock()
		stats.Endpoints = append(stats.Endpoints, &now)
	}
	return stats
}

// serve subscribes to what is asked of every service, of those of a name, and
// of this one alone.
func (b *board) serve(conn *Conn) (subs []*nats.Subscription, err error) {
	for verb, say := range map[micro.Verb]func() any{ // order: each is a subject of its own
		micro.PingVerb: b.ping, micro.InfoVerb: b.info, micro.StatsVerb: b.stats,
	} {
		answer := func(msg *nats.Msg) {
			data, err := json.Marshal(say())
			if err == nil {
				_ = msg.Respond(data) // anyone who asked may be gone
			}
		}
		for _, of := range [][2]string{{}, {b.identity.Name}, {b.identity.Name, b.identity.ID}} {
			subject, err := micro.ControlSubject(verb, of[0], of[1])
			if err != nil {
				return subs, err
			}
			sub, err := conn.Subscribe(subject, answer)
			if err != nil {
				return subs, err
			}
			subs = append(subs, sub)
		}
	}
	return subs, nil
}
