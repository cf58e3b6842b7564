// Package grpcchaos puts squallchaos before the methods of a gRPC server.
//
//	chaos, err := squallchaos.NewForGRPC(settings)
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(grpcchaos.Unary(chaos)),
//		grpc.ChainStreamInterceptor(grpcchaos.Stream(chaos)),
//	)
//
// A call is decided about once, when it begins: a stream is delayed before its handler is called, or aborted. Put the
// interceptors behind those that begin the trace. A call whose caller leaves while it is held back goes on to its handler
// at once, with its context ended.
package grpcchaos

import (
	"context"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"squall.dev/squallchaos"
)

// method is what every call of gRPC is in HTTP.
const method = http.MethodPost

// messageOfNone is what an abort says that was given no text.
const messageOfNone = "chaos injected"

// Unary puts chaos before calls of one request and one answer.
func Unary(chaos *squallchaos.Chaos) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, trailer, err := inject(ctx, chaos, info.FullMethod)
		if err != nil {
			_ = grpc.SetTrailer(ctx, trailer) // only fails outside a call
			return nil, err
		}
		return handler(ctx, request)
	}
}

// Stream puts chaos before calls that are streams, on either side.
func Stream(chaos *squallchaos.Chaos) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, trailer, err := inject(stream.Context(), chaos, info.FullMethod)
		if err != nil {
			stream.SetTrailer(trailer)
			return err
		}
		if ctx != stream.Context() {
			stream = withContext{stream, ctx}
		}
		return handler(server, stream)
	}
}

// withContext is a stream whose handler sees other metadata.
type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

// inject decides about a call and lets happen what shall; an error is an abort's.
func inject(ctx context.Context, chaos *squallchaos.Chaos, path string) (context.Context, metadata.MD, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	request := squallchaos.Request{Method: method, Path: path, Headers: fields(incoming)}
	verdict := chaos.Decide(request)
	if verdict.Reason != "" {
		chaos.Inject(ctx, request, verdict)
	}
	if verdict.Reason == squallchaos.Abort {
		trailer := metadata.MD{}
		verdict.Headers(func(name, value string) { trailer.Set(name, value) })
		return ctx, trailer, status.Error(code(verdict), message(verdict))
	}
	if verdict.Strip != "" {
		rest := incoming.Copy()
		delete(rest, strings.ToLower(verdict.Strip))
		ctx = metadata.NewIncomingContext(ctx, rest)
	}
	return ctx, nil, nil
}

func message(verdict squallchaos.Verdict) string {
	if verdict.Body == "" {
		return messageOfNone
	}
	return verdict.Body
}

// code is the status of gRPC for an abort's: as it is where the settings say a code, else by the table of
// http-grpc-status-mapping in the gRPC project's documentation.
func code(verdict squallchaos.Verdict) codes.Code {
	if verdict.Status <= int(codes.Unauthenticated) {
		return codes.Code(verdict.Status)
	}
	switch verdict.Status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

// fields are a call's metadata as headers.
type fields metadata.MD

// Values are those of a name, in any case.
func (f fields) Values(name string) []string { return metadata.MD(f).Get(name) }
