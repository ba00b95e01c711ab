//! `team`: teams and who is in them.

use clap::Subcommand;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

const PATH: &str = "/api/v1/runtime/teams";

#[derive(Debug, Subcommand)]
pub(crate) enum TeamCommand {
    /// List your teams; every team for administrators
    #[command(after_help = "Example:\n  mcp-runtime team list")]
    List,
    /// Make a team with its namespace (administrators)
    #[command(after_help = "Example:\n  mcp-runtime team create acme --name \"Acme Corp\"")]
    Create {
        /// Short name: lower-case letters, digits and hyphens
        slug: String,
        /// Name for people; the slug when absent
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a team whose namespace is empty
    #[command(after_help = "Example:\n  mcp-runtime team delete acme")]
    Delete {
        /// Its slug
        slug: String,
    },
    /// Who is in a team
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List the members of a team
    #[command(after_help = "Example:\n  mcp-runtime team user list acme")]
    List {
        /// Slug of the team
        team: String,
    },
    /// Add an account to a team, or change its role there
    #[command(after_help = "Example:\n  mcp-runtime team user add acme bob@example.com --role owner")]
    Add {
        /// Slug of the team
        team: String,
        /// E-mail address or id of the account
        user: String,
        /// member or owner
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// Invite somebody who has no account yet; they join the team with it (administrators)
    #[command(after_help = "Example:\n  mcp-runtime team user invite acme bob@example.com")]
    Invite {
        /// Slug of the team
        team: String,
        /// E-mail address
        email: String,
        /// member or owner
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// Take somebody out of a team
    #[command(after_help = "Example:\n  mcp-runtime team user remove acme bob@example.com")]
    Remove {
        /// Slug of the team
        team: String,
        /// E-mail address or id of the account
        user: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Team {
    id: String,
    slug: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Teams {
    teams: Vec<Team>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TeamAnswer {
    team: Team,
}

#[derive(Debug, Serialize, Deserialize)]
struct Member {
    user_id: String,
    email: String,
    role: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MemberAnswer {
    member: Member,
}

pub(crate) async fn run(client: &Client, output: Output, command: TeamCommand) -> Result<Done, Fault> {
    match command {
        TeamCommand::List => {
            let teams: Teams = client.get(PATH, &[("limit", "500".to_owned())]).await?;
            render::document(output, &teams, |teams| {
                if teams.teams.is_empty() {
                    return "You are in no team. An administrator adds you: mcp-runtime team user add TEAM YOU".to_owned();
                }
                let rows = teams.teams.iter().map(|team| {
                    vec![
                        team.slug.clone(),
                        text::safe(&team.name),
                        team.namespace.clone(),
                        team.id.clone(),
                    ]
                });
                render::table(&["SLUG", "NAME", "NAMESPACE", "ID"], rows)
            })?;
        }
        TeamCommand::Create { slug, name } => {
            let answer: TeamAnswer = client
                .send(Method::POST, PATH, Some(&json!({ "slug": slug, "name": name })))
                .await?;
            render::document(output, &answer, |answer| {
                format!(
                    "Team {} with the namespace {} is made.",
                    answer.team.slug, answer.team.namespace
                )
            })?;
        }
        TeamCommand::Delete { slug } => {
            let answer: TeamAnswer = client.send(Method::DELETE, &format!("{PATH}/{slug}"), None).await?;
            render::document(output, &answer, |answer| format!("Team {} is removed.", answer.team.slug))?;
        }
        TeamCommand::User(command) => return users(client, output, command).await,
    }
    Ok(Done::Well)
}

async fn users(client: &Client, output: Output, command: UserCommand) -> Result<Done, Fault> {
    match command {
        UserCommand::List { team } => {
            let members: Members = client.get(&format!("{PATH}/{team}/members"), &[]).await?;
            render::document(output, &members, |members| {
                let rows = members
                    .members
                    .iter()
                    .map(|member| vec![text::safe(&member.email), member.role.clone(), member.user_id.clone()]);
                render::table(&["EMAIL", "ROLE", "USER ID"], rows)
            })?;
        }
        UserCommand::Add { team, user, role } => {
            let body = json!({ "user": user, "role": role });
            let answer: MemberAnswer = client
                .send(Method::POST, &format!("{PATH}/{team}/members"), Some(&body))
                .await?;
            render::document(output, &answer, |answer| {
                format!("{} is {} of {team}.", text::safe(&answer.member.email), answer.member.role)
            })?;
        }
        UserCommand::Invite { team, email, role } => {
            let body = json!({ "email": email, "team": team, "team_role": role });
            let answer: Value = client.send(Method::POST, "/api/v1/invitations", Some(&body)).await?;
            render::document(output, &answer, |answer| {
                let secret = answer.get("secret").and_then(Value::as_str).unwrap_or_default();
                format!(
                    "Invitation for {}. Send it to them, it is not shown again:\n\n  {secret}",
                    text::safe(&email)
                )
            })?;
        }
        UserCommand::Remove { team, user } => {
            let done: Value = client
                .send(Method::DELETE, &format!("{PATH}/{team}/members/{user}"), None)
                .await?;
            render::document(output, &done, |_| format!("{} is not in {team} any more.", text::safe(&user)))?;
        }
    }
    Ok(Done::Well)
}
