#!/usr/bin/env escript
%% What shared/supervision/benches/restarts.rs measures, on Erlang/OTP: the same cases, the same output.
-mode(compile).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, start_worker/1, start_bomb/1]).

-define(ROUNDS, 20000).
%% OTP keeps its restarts of the last second in a list and walks it at each restart. Nobody restarts that often
%% in earnest, so each supervisor serves this many rounds only: OTP at its best. (One row shows it without this.)
-define(ROUNDS_PER_SUPERVISOR, 100).

main(_) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    latency("one_for_one_same_arbiter", one_for_one, 1, ?ROUNDS),
    latency("one_for_all_10", one_for_all, 10, ?ROUNDS div 4),
    restarts_per_second("restarts_per_second", 1, 20000),
    restarts_per_second("restarts_per_second_fresh_supervisors", 200, ?ROUNDS_PER_SUPERVISOR).

latency(Case, Strategy, Count, Rounds) ->
    Batches = Rounds div ?ROUNDS_PER_SUPERVISOR,
    Times = lists:append([batch(Strategy, Count) || _ <- lists:seq(1, Batches + Batches div 10)]),
    Measured = lists:sort(lists:nthtail(Rounds div 10, Times)),
    At = fun(Permille) -> lists:nth(1 + (length(Measured) - 1) * Permille div 1000, Measured) / 1000 end,
    io:format("~s ~.1f ~.1f~n", [Case, At(500), At(990)]).

batch(Strategy, Count) ->
    {ok, Sup} = supervisor:start_link(?MODULE, {workers, Strategy, Count}),
    Last = name(Count),
    Times = [round_trip(Last) || _ <- lists:seq(1, ?ROUNDS_PER_SUPERVISOR)],
    stop(Sup),
    Times.

%% Crashes the first, then asks the first and the last until both replacements have answered.
round_trip(Last) ->
    Old = {whereis(w1), whereis(Last)},
    From = erlang:monotonic_time(nanosecond),
    gen_server:cast(w1, crash),
    ask(w1, element(1, Old)),
    ask(Last, element(2, Old)),
    erlang:monotonic_time(nanosecond) - From.

ask(Name, Old) ->
    case whereis(Name) of
        undefined -> erlang:yield(), ask(Name, Old);
        Old -> erlang:yield(), ask(Name, Old);
        Pid ->
            try gen_server:call(Pid, ask) of 1 -> ok
            catch exit:_ -> ask(Name, Old)
            end
    end.

restarts_per_second(Case, Supervisors, Lives) ->
    Took = lists:sum([burn(Lives) || _ <- lists:seq(1, Supervisors)]),
    io:format("~s ~b~n", [Case, round(Supervisors * Lives * 1.0e9 / Took)]).

burn(Lives) ->
    Fuse = counters:new(1, []),
    From = erlang:monotonic_time(nanosecond),
    {ok, Sup} = supervisor:start_link(?MODULE, {bomb, Fuse, Lives, self()}),
    To = receive {burnt, At} -> At end,
    stop(Sup),
    To - From.

stop(Sup) ->
    exit(Sup, shutdown),
    receive {'EXIT', Sup, _} -> ok end.

name(N) -> list_to_atom("w" ++ integer_to_list(N)).

start_worker(Name) -> gen_server:start_link({local, Name}, ?MODULE, worker, []).
start_bomb(Args) -> gen_server:start_link(?MODULE, Args, []).

init({workers, Strategy, Count}) ->
    Child = fun(N) -> #{id => N, start => {?MODULE, start_worker, [name(N)]}} end,
    {ok, {#{strategy => Strategy, intensity => 1000000000, period => 1}, [Child(N) || N <- lists:seq(1, Count)]}};
init({bomb, Fuse, Lives, Done}) ->
    Child = #{id => bomb, start => {?MODULE, start_bomb, [{life, Fuse, Lives, Done}]}},
    {ok, {#{strategy => one_for_one, intensity => 1000000000, period => 1}, [Child]}};
init({life, Fuse, Lives, Done}) ->
    counters:add(Fuse, 1, 1),
    case counters:get(Fuse, 1) < Lives of
        true -> self() ! crash;
        false -> Done ! {burnt, erlang:monotonic_time(nanosecond)}
    end,
    {ok, none};
init(worker) -> {ok, none}.

handle_call(ask, _, State) -> {reply, 1, State}.
handle_cast(crash, _) -> exit(crash).
handle_info(crash, _) -> exit(crash).
