package grpcchaos_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"squall.dev/squallchaos"
	"squall.dev/squallchaos/grpcchaos"
)

// The service of these tests: Say answers with what its caller's X-Chaos-Enabled was, Echo sends back what comes.
var echo = grpc.ServiceDesc{
	ServiceName: "shop.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Say",
		Handler: func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			asked := new(wrapperspb.StringValue)
			if err := decode(asked); err != nil {
				return nil, err
			}
			handler := func(ctx context.Context, _ any) (any, error) { return wrapperspb.String(seen(ctx)), ctx.Err() }
			return interceptor(ctx, asked, &grpc.UnaryServerInfo{FullMethod: "/shop.Echo/Say"}, handler)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Echo", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			if err := stream.SendMsg(wrapperspb.String(seen(stream.Context()))); err != nil {
				return err
			}
			for {
				asked := new(wrapperspb.StringValue)
				if err := stream.RecvMsg(asked); errors.Is(err, io.EOF) {
					stream.SetTrailer(metadata.Pairs("sum", "all"))
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(asked); err != nil {
					return err
				}
			}
		},
	}},
}

func seen(ctx context.Context) string {
	incoming, _ := metadata.FromIncomingContext(ctx)
	return fmt.Sprint(incoming.Get("X-Chaos-Enabled"))
}

// served is a client of a real server with this chaos.
func served(t *testing.T, change func(*squallchaos.Settings)) *grpc.ClientConn {
	t.Helper()
	settings := squallchaos.DefaultSettings("echo")
	settings.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	change(&settings)
	chaos, err := squallchaos.NewForGRPC(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chaos.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpcchaos.Unary(chaos)), grpc.ChainStreamInterceptor(grpcchaos.Stream(chaos)),
	)
	server.RegisterService(&echo, nil)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// on is chaos of the service's own that hits every call which carries the header.
func on(s *squallchaos.Settings) {
	s.Enabled, s.Until, s.Sample = true, time.Now().Add(time.Hour), 1
}

func calling(t *testing.T, pairs ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

func say(ctx context.Context, client *grpc.ClientConn, options ...grpc.CallOption) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := client.Invoke(ctx, "/shop.Echo/Say", wrapperspb.String("hello"), answer, options...)
	return answer.GetValue(), err
}

// talk opens a stream, says three things and gives back what came, the first being what the handler saw.
func talk(ctx context.Context, client *grpc.ClientConn) ([]string, metadata.MD, error) {
	stream, err := client.NewStream(ctx, &echo.Streams[0], "/shop.Echo/Echo")
	if err != nil {
		return nil, nil, err
	}
	var heard []string
	for i := 0; i < 4; i++ {
		answer := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(answer); err != nil {
			return heard, stream.Trailer(), err
		}
		heard = append(heard, answer.GetValue())
		if i < 3 {
			if err := stream.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
				return heard, nil, err
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		return heard, nil, err
	}
	err = stream.RecvMsg(new(wrapperspb.StringValue))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return heard, stream.Trailer(), err
}

func TestADelayIsFeltByCallsAndStreams(t *testing.T) {
	const delay = 100 * time.Millisecond
	client := served(t, func(s *squallchaos.Settings) { on(s); s.DelayMin, s.DelayMax = delay, delay })
	ctx := calling(t, "x-chaos-enabled", "1")
	begun := time.Now()
	if answer, err := say(ctx, client); err != nil || answer != "[1]" || time.Since(begun) < delay {
		t.Errorf("%q %v after %v", answer, err, time.Since(begun))
	}
	begun = time.Now()
	heard, trailer, err := talk(ctx, client)
	if err != nil || len(heard) != 4 || heard[3] != "2" || trailer.Get("sum")[0] != "all" || time.Since(begun) < delay {
		t.Errorf("%v %v %v after %v", heard, trailer, err, time.Since(begun))
	}
}

func TestAnAbortedCallIsNotHandled(t *testing.T) {
	for set, want := range map[int]codes.Code{
		7: codes.PermissionDenied, 16: codes.Unauthenticated, 503: codes.Unavailable, 404: codes.Unimplemented,
	} {
		client := served(t, func(s *squallchaos.Settings) { on(s); s.AbortStatus, s.AbortShare, s.Path = set, 1, "/shop.Echo/*" })
		ctx := calling(t, "X-Chaos-Enabled", "1")
		if answer, err := say(ctx, client); status.Code(err) != want || status.Convert(err).Message() != "chaos injected" {
			t.Errorf("%d: %q %v", set, answer, err)
		}
		if heard, _, err := talk(ctx, client); status.Code(err) != want || len(heard) != 0 {
			t.Errorf("%d: %q %v", set, heard, err)
		}
		if _, err := say(calling(t), client); err != nil {
			t.Errorf("%d, without the header: %v", set, err)
		}
	}
}

func TestStripTakesTheMetadataOff(t *testing.T) {
	client := served(t, func(s *squallchaos.Settings) { on(s); s.Edge, s.AbortStatus, s.AbortShare = squallchaos.Strip, 14, 1 })
	ctx := calling(t, "x-chaos-enabled", "1", "user", "u")
	if answer, err := say(ctx, client); err != nil || answer != "[]" {
		t.Errorf("%q %v", answer, err)
	}
	if heard, _, err := talk(ctx, client); err != nil || heard[0] != "[]" {
		t.Errorf("%q %v", heard, err)
	}
}

func TestACallerWhoLeavesIsNotHeldBack(t *testing.T) {
	client := served(t, func(s *squallchaos.Settings) { on(s); s.DelayMin, s.DelayMax = time.Hour, time.Hour })
	ctx, cancel := context.WithTimeout(calling(t, "x-chaos-enabled", "1"), 50*time.Millisecond)
	defer cancel()
	if _, err := say(ctx, client); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	if _, err := say(calling(t), client); err != nil {
		t.Error(err)
	}
}

// What Squall says of HTTP is said in gRPC's words.
func TestADrivenAbort(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("SQUALL_CHAOS_DIR", folder)
	client := served(t, func(s *squallchaos.Settings) { s.Driven = true })
	lease := make([]byte, 8)
	for set, want := range statuses(t) {
		if set < 200 {
			continue // a driven fault is one of HTTP
		}
		order := fmt.Sprintf(`{"version":1,"run":"r","faults":[{"id":"%d","require_header":false,"header":"X-Chaos-Enabled",`+
			`"sample":1,"method":"post","path":"/shop.Echo/*","headers":{"user":"*"},"delay_min_ns":0,"delay_max_ns":0,`+
			`"abort_status":%d,"abort_body":"no %d","abort_headers":{"Retry-After":"7"},"seed":1}]}`, set, set, set)
		binary.LittleEndian.PutUint64(lease, uint64(bootNow(t)+int64(9*time.Second)))
		put(t, filepath.Join(folder, "echo.json"), []byte(order))
		put(t, filepath.Join(folder, "echo.lease"), lease)
		var trailer metadata.MD
		var err error
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err = say(calling(t, "user", "u"), client, grpc.Trailer(&trailer)); status.Convert(err).Message() == fmt.Sprintf("no %d", set) {
				break
			}
		}
		if status.Code(err) != want || len(trailer.Get("retry-after")) != 1 {
			t.Errorf("%d: %v, trailer %v", set, err, trailer)
		}
	}
	if _, err := say(calling(t), client); err != nil {
		t.Errorf("without the metadata that is asked for: %v", err)
	}
}

// Every status of sdk/cases, which the Python interceptor is held to as well.
func TestTheStatusesOfTheCases(t *testing.T) {
	for set, want := range statuses(t) {
		client := served(t, func(s *squallchaos.Settings) { on(s); s.AbortStatus, s.AbortShare = set, 1 })
		if _, err := say(calling(t, "X-Chaos-Enabled", "1"), client); status.Code(err) != want {
			t.Errorf("%d: %v", set, err)
		}
	}
}

func statuses(t *testing.T) map[int]codes.Code {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "cases", "grpc-status.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Status int
		Code   codes.Code
	}
	if err := json.Unmarshal(content, &rows); err != nil || len(rows) == 0 {
		t.Fatal(err, len(rows))
	}
	found := map[int]codes.Code{}
	for _, each := range rows {
		found[each.Status] = each.Code
	}
	return found
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// bootNow is the kernel's uptime, which counts from the same moment as CLOCK_BOOTTIME.
func bootNow(t *testing.T) int64 {
	t.Helper()
	content, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Skip("needs Linux")
	}
	var seconds float64
	if _, err := fmt.Sscan(string(content), &seconds); err != nil {
		t.Fatal(err)
	}
	return int64(seconds * 1e9)
}
