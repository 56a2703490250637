//! The promises of the bus, one test each, on every implementation.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fault;
mod lease;
mod log;
mod queue;
mod request;
mod stage;
mod topic;

/// Runs each promise on each implementation. A promise is an async function of a fresh [`stage::Stage`].
macro_rules! conformance {
    ($($module:ident: $($promise:ident),+ $(,)?;)+) => {
        mod embedded {
            $($(#[tokio::test] async fn $promise() {
                crate::$module::$promise(crate::stage::Stage::embedded()).await;
            })+)+
        }
        mod rabbitmq {
            $($(#[tokio::test] async fn $promise() {
                crate::$module::$promise(crate::stage::Stage::rabbitmq()).await;
            })+)+
        }
    };
}

conformance! {
    queue:
        what_is_published_is_delivered_in_order,
        an_unacked_message_comes_back_when_its_consumer_is_dropped,
        a_nacked_message_comes_back_and_is_counted,
        prefetch_bounds_what_is_held,
        ack_through_answers_for_all_before_it,
        consumers_compete_and_none_gets_what_another_has,
        a_message_that_came_back_too_often_is_a_dead_letter,
        a_message_given_up_is_a_dead_letter,
        a_full_queue_refuses_and_takes_again_when_there_is_room,
        higher_priorities_come_first,
        an_unknown_queue_is_a_clear_error,
        declaring_again_is_harmless_and_differently_is_refused,
        the_envelope_arrives_whole,
        confirmed_messages_survive_a_reopened_bus,
        many_publishers_and_consumers_lose_nothing;
    topic:
        everybody_subscribed_hears_it_and_patterns_select,
        a_slow_subscriber_is_told_how_much_it_missed;
    log:
        readers_see_every_entry_in_one_order,
        a_reader_starts_where_it_is_told,
        a_batch_stays_together,
        a_log_survives_a_reopened_bus_with_its_offsets,
        a_deleted_log_starts_anew,
        a_slow_reader_gets_everything;
    request:
        a_request_is_answered,
        nobody_serving_is_told_at_once,
        no_reply_in_time_is_a_deadline,
        a_dropped_request_is_told,
        servers_share_the_requests;
    lease:
        one_holder_at_a_time_and_dropping_releases,
        a_cut_link_loses_its_leases;
    fault:
        a_disconnected_consumer_gets_its_messages_again_and_goes_on,
        a_partition_stops_a_link_and_no_other_and_ends_by_itself,
        lost_publishes_are_unknown_and_lost_deliveries_come_again,
        doubled_messages_have_one_id,
        a_delay_delays_and_clear_ends_it,
        a_subscriber_is_told_that_it_was_cut_off,
        the_state_of_a_link_can_be_watched;
}
